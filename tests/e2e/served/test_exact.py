"""The whole system against one process: HTTP, Serve, router and four workers give its very bits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import openai
import pytest
import torch

from kimi_k2.load import load_local_experts, load_router_model
from kimi_k2.tokenizer import Tokenizer
from router_service.request import Request
from router_service.sampling import SamplingParams
from tests.e2e.server import Orrery
from tests.integration.router_service.harness import Bench, prompt
from tests.support.checkpoints import NANO_K2
from tests.support.deadline import run_async

pytestmark = pytest.mark.ray

TOKENS = 24
LENGTHS = (1, 3, 64, 65, 130, 257)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One prompt and how to sample."""

    prompt_token_ids: tuple[int, ...]
    temperature: float
    seed: int


@pytest.fixture(scope="module")
def bench() -> Bench:
    torch.set_num_threads(1)
    model = load_router_model(NANO_K2)
    experts = load_local_experts(NANO_K2, numerics=model.numerics)
    return Bench(model=model, experts=experts, tokenizer=Tokenizer.from_dir(NANO_K2))


def cases() -> list[Case]:
    return [
        Case(
            prompt_token_ids=prompt(length, vocab_size=5900, seed=number),
            temperature=temperature,
            seed=number,
        )
        for number, length in enumerate(LENGTHS)
        for temperature in (0.0, 0.9)
    ]


def in_process(bench: Bench) -> list[tuple[list[str], list[float]]]:
    requests = [
        Request(
            request_id=f"case-{number}",
            prompt_token_ids=case.prompt_token_ids,
            sampling=SamplingParams(
                temperature=case.temperature,
                seed=case.seed,
                max_tokens=TOKENS,
                ignore_eos=True,
                logprobs=0,
            ),
        )
        for number, case in enumerate(cases())
    ]
    results = run_async(bench.alone(requests), 120.0)
    return [
        (
            [bench.tokenizer.decode([token]) for token in result.tokens],
            [entry.logprob for entry in result.logprobs],
        )
        for result in results
    ]


def over_http(served: Orrery) -> list[tuple[list[str], list[float]]]:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=120, max_retries=0)

    def ask(case: Case) -> tuple[list[str], list[float]]:
        answer = client.completions.create(
            model="nano-k2",
            prompt=list(case.prompt_token_ids),
            temperature=case.temperature,
            seed=case.seed,
            max_tokens=TOKENS,
            logprobs=0,
            extra_body={"ignore_eos": True, "top_p": 1.0},
        )
        found = answer.choices[0].logprobs
        assert found is not None
        assert found.tokens is not None
        assert found.token_logprobs is not None
        return found.tokens, [float(value or 0.0) for value in found.token_logprobs]

    with ThreadPoolExecutor(len(cases())) as pool:
        return list(pool.map(ask, cases()))


def test_http_gives_the_bits_of_one_process(served: Orrery, bench: Bench) -> None:
    assert over_http(served) == in_process(bench)
