"""The HTTP endpoints."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from gateway.admission import Admission
from gateway.api import Api
from gateway.chat_answer import ChatAnswer
from gateway.chat_request import ChatRequest, read_chat_request
from gateway.completion_answer import CompletionAnswer
from gateway.completion_request import CompletionRequest, Prompt, read_completion_request
from gateway.reply_parser import ReplyParser
from gateway.responses import json_response
from kimi_k2.tokenizer import Tokenizer


class Endpoints:
    """One method a path; each raises typed errors, which `gateway.http` answers."""

    def __init__(self, api: Api, admission: Admission) -> None:
        self._api = api
        self._admission = admission

    async def chat_completions(self, request: Request) -> Response:
        api = self._api
        model = api.model
        body = await api.body(request)
        identity = await api.identity(request, body)
        asked, prompt = await api.compute(request, lambda: self._chat_prompt(body, identity.seed))
        name, n = f"chatcmpl-{identity.name}", asked.delivery.n
        jobs = api.jobs(name, [prompt], asked.sampling, n, await api.context())
        calls = sum(len(message.get("tool_calls", ())) for message in asked.messages)
        parsers = [
            ReplyParser(
                model.tokenizer,
                reasoning_open=ends_in_reasoning(prompt, model.tokenizer),
                first_call=calls if asked.tools else None,
                stops=asked.sampling.params.stop,
            )
            for _ in jobs
        ]
        answer = ChatAnswer(
            jobs,
            parsers,
            name=name,
            identity=identity,
            model=model.name,
            fingerprint=api.fingerprint,
            tokenizer=model.tokenizer,
            logprobs=asked.logprobs,
        )
        return await api.respond(request, identity, jobs, answer, asked.delivery)

    async def completions(self, request: Request) -> Response:
        api = self._api
        model = api.model
        body = await api.body(request)
        identity = await api.identity(request, body)
        asked, prompts = await api.compute(
            request, lambda: self._completion_prompts(body, identity.seed)
        )
        name, n = f"cmpl-{identity.name}", asked.delivery.n
        jobs = api.jobs(name, prompts, asked.sampling, n, await api.context())
        echoes = [self._echo(prompt) if asked.echo else "" for prompt in asked.prompts]
        answer = CompletionAnswer(
            jobs,
            [echo for echo in echoes for _ in range(n)],
            name=name,
            identity=identity,
            model=model.name,
            fingerprint=api.fingerprint,
            tokenizer=model.tokenizer,
            logprobs=asked.logprobs,
        )
        return await api.respond(request, identity, jobs, answer, asked.delivery)

    async def models(self, request: Request) -> Response:
        card = self._api.model.body(self._api.pool.max_model_len)
        return json_response({"object": "list", "data": [card]})

    async def model(self, request: Request) -> Response:
        self._api.model.check_name(request.path_params["model"])
        return json_response(self._api.model.body(self._api.pool.max_model_len))

    async def health(self, request: Request) -> Response:
        """200 while some router is ready and new requests are taken, so that load balancers can
        ask."""
        routers = [
            {
                "address": router.address,
                "state": router.description.state if router.description else "unreachable",
                "outstanding": router.outstanding,
            }
            for router in self._api.pool.routers
        ]
        healthy = any(router.healthy for router in self._api.pool.routers)
        status = "ok" if healthy else "no router is ready"
        if self._admission.draining:
            status = "draining"
        body = {"status": status, "routers": routers}
        return json_response(body, 200 if status == "ok" else 503)

    def _chat_prompt(self, body: Mapping[str, object], seed: int) -> tuple[ChatRequest, list[int]]:
        model = self._api.model
        asked = read_chat_request(
            body,
            model.defaults,
            vocab_size=model.tokenizer.vocab_size,
            max_choices=self._api.config.max_choices,
            seed=seed,
        )
        prompt = model.template.encode(
            asked.messages, asked.tools, asked.thinking, variables=asked.variables
        )
        return asked, prompt

    def _completion_prompts(
        self, body: Mapping[str, object], seed: int
    ) -> tuple[CompletionRequest, list[list[int]]]:
        model = self._api.model
        asked = read_completion_request(
            body,
            model.defaults,
            vocab_size=model.tokenizer.vocab_size,
            max_choices=self._api.config.max_choices,
            seed=seed,
        )
        prompts = [
            model.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
            for prompt in asked.prompts
        ]
        return asked, prompts

    def _echo(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else self._api.model.tokenizer.decode(prompt)


def ends_in_reasoning(prompt: list[int], tokenizer: Tokenizer) -> bool:
    """Whether the prompt opens `<think>` and leaves it to the model to close it."""
    opened, closed = tokenizer.specials.get("<think>"), tokenizer.specials.get("</think>")
    for index in reversed(prompt):
        if index in (opened, closed):
            return index == opened
        if index == tokenizer.specials.get("<|im_middle|>"):
            return False
    return False
