"""Measure an exported checkpoint on prompts made from the test split: tools, no call, arithmetic, results, loops.

python evaluate.py --model .. --corpus CORPUS --out evaluation.json --device cuda
python evaluate.py --model .. --corpus CORPUS --out evaluation.json --count 20
python evaluate.py --model .. --corpus CORPUS --out training-split.json --training-split --device cuda
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import torch
from safetensors.torch import load_file
from torch import Tensor

import arithmetic
import knowledge
import naturals
import smalltalk
import tokenizer
import toolbox
import toolcalls
import toolspecs
import wordnet
from chat import Conversation, prompt
from model import Model, ModelConfig
from quantize import dequantize, unpack
from words import Words

FIXED = (
    "Hello!",
    "hi, how are you?",
    "Who are you?",
    "What can you do?",
    "What is Orrery?",
    "What is a mixture of experts?",
    "Are you Kimi K2?",
    "My name is Kirsten.",
    "Tell me a joke.",
    "I had a bad day.",
    "Thank you!",
    "What is 47 + 85?",
    "What is 312 - 178?",
    "Compute 23 * 67.",
    "What is 987 times 654?",
    "Divide 144 by 12.",
    "Tom has 12 apples and gets 30 more. How many apples does Tom have now?",
    'What does "lantern" mean?',
    "Define gravity.",
    "What is a synonym of happy?",
    "How do I reverse a list in Python?",
    "Write a Python function that adds two numbers.",
    "What is the capital of Norway?",
    "How many days are in a week?",
    "Repeat after me: the quick brown fox",
    "Spell the word planet",
    "Tell me a short story about a robot and a garden.",
    "Why is the sky blue?",
    "Who won the football match yesterday?",
    "Explain quantum physics.",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A prompt, and what to hold the reply against."""

    prompt: str
    wanted: Any = None


def effective(q: Tensor, scale: Tensor) -> Tensor:
    """What an expert computes with, float32."""
    return dequantize(q, scale).float()


def load_model(folder: Path, device: torch.device, experts: Callable[[Tensor, Tensor], Tensor] = effective) -> Model:
    """The exported checkpoint as a training model; `experts` makes masters of the integers and scales of the routed ones."""
    raw: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        raw |= load_file(path, device=str(device))
    model = Model(ModelConfig.read(folder)).to(device)
    state = {}
    for name in model.state_dict():
        hf = name if name == "lm_head" else f"model.{name}"
        if name.endswith(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")) and f"{hf}.weight" not in raw:
            stem, part = hf.rsplit(".", 1)
            names = [f"{stem}.experts.{expert}.{part}.weight" for expert in range(model.config.n_routed_experts)]
            q = unpack(torch.stack([raw[n + "_packed"] for n in names]))
            state[name] = experts(q, torch.stack([raw[n + "_scale"] for n in names]))
        elif name.endswith("e_score_correction_bias"):
            state[name] = raw[hf.replace("mlp.e_score", "mlp.gate.e_score")]
        else:
            state[name] = raw[f"{hf}.weight"].float()
    model.load_state_dict(state)
    return model.eval()


@torch.no_grad()
def greedy(model: Model, encoding: tiktoken.Encoding, prompts: list[str], limit: int, dtype: torch.dtype) -> list[str]:
    """Greedy replies without a cache: everything is computed anew each step, packed as in training."""
    device = model.lm_head.device
    rows = [encoding.encode(text, allowed_special="all") for text in prompts]
    stops = set(encoding.encode("<|im_end|>[EOS]", allowed_special="all"))
    lengths = torch.tensor([len(row) for row in rows], device=device)
    ids = torch.zeros(len(rows), int(lengths.max()) + limit, dtype=torch.long, device=device)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, device=device)
    active, at = torch.arange(len(rows), device=device), torch.arange(ids.shape[1], device=device)
    for _ in range(limit):
        mask = at < lengths[active, None]
        cu = torch.cat((lengths.new_zeros(1), lengths[active].cumsum(0))).to(torch.int32)
        hidden, _ = model.hidden(ids[active][mask], at.expand_as(mask)[mask], cu, int(lengths[active].max()), dtype)
        best = model.logits(hidden[cu[1:].long() - 1]).argmax(-1)
        ids[active, lengths[active]] = best
        lengths[active] += 1
        active = active[torch.tensor([token not in stops for token in best.tolist()], device=device)]
        if not len(active):
            break
    return [encoding.decode(ids[i, len(row) : int(lengths[i])].tolist()) for i, row in enumerate(rows)]


def calls_in(reply: str) -> list[tuple[str, Any]]:
    """(function, arguments) of each call in a reply; malformed JSON is kept as text."""
    calls = []
    for piece in reply.split("<|tool_call_begin|>")[1:]:
        name, _, rest = piece.partition("<|tool_call_argument_begin|>")
        text = rest.partition("<|tool_call_end|>")[0]
        try:
            calls.append((name, json.loads(text)))
        except ValueError:
            calls.append((name, text))
    return calls


def said(value: Any) -> str:
    """How an answer writes a value."""
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def first_turn(made: Conversation) -> Case | None:
    """The conversation up to its first calls, which are what is wanted."""
    for index, message in enumerate(made.messages):
        if message["role"] == "assistant":
            if not message.get("tool_calls"):
                return None
            cut = Conversation(messages=made.messages[: index + 1], tools=made.tools, thinking=True)
            wanted = [(call["id"], json.loads(call["function"]["arguments"])) for call in message["tool_calls"]]
            return Case(prompt=prompt(cut), wanted=wanted)
    return None


def later_turn(made: Conversation) -> Case | None:
    """The conversation up to calls that come after a tool's result; those calls are what is wanted."""
    for index, message in enumerate(made.messages):
        if message["role"] == "assistant" and message.get("tool_calls") and made.messages[index - 1]["role"] == "tool":
            cut = Conversation(messages=made.messages[: index + 1], tools=made.tools, thinking=True)
            wanted = [(call["id"], typed(json.loads(call["function"]["arguments"]), call, made.tools)) for call in message["tool_calls"]]
            return Case(prompt=prompt(cut), wanted=wanted)
    return None


def typed(arguments: dict[str, Any], call: dict[str, Any], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers as text where the declaration says string: `toolcalls.chain` passes them on as the result had them."""
    declared = next(tool["function"] for tool in tools if tool["function"]["name"] == call["function"]["name"])
    kinds = {name: schema["type"] for name, schema in declared["parameters"]["properties"].items()}
    return {name: str(value) if kinds[name] == "string" else value for name, value in arguments.items()}


def values_in(result: str) -> list[str]:
    """What an answer that uses a tool's result must contain: every value of it, or the reason of an error."""
    if result.startswith("{"):
        return [said(value) for name, value in json.loads(result).items() if (name, value) != ("status", "ok")]
    return [piece for piece in re.split(r"(?:^|, )[\w ]+: ", result) if piece]


def result_turn(made: Conversation) -> Case | None:
    """The conversation up to its last answer; wanted are the usual answer and every value of the results before it."""
    last = made.messages[-1]
    if last.get("tool_calls") or made.messages[-2]["role"] != "tool":
        return None
    since = max(i for i, m in enumerate(made.messages) if m["role"] == "assistant" and m.get("tool_calls"))
    values = [value for message in made.messages[since + 1 : -1] for value in values_in(message["content"])]
    cut = Conversation(messages=made.messages, tools=made.tools, thinking=True)
    return Case(prompt=prompt(cut), wanted=[last["content"], *values])


def collect(make: Any, count: int) -> list[Case]:
    cases: list[Case] = []
    while len(cases) < count:
        case = make()
        if case is not None and len(case.prompt) < 8000:
            cases.append(case)
    return cases


def plain_case(words: Words) -> Case:
    made = (smalltalk if words.chance(0.5) else knowledge).conversation(words)
    return Case(prompt=prompt(Conversation(messages=[made.messages[-2], made.messages[-1]])), wanted=made.messages[-1]["content"])


def memory_case(words: Words) -> Case:
    """A name or the like is asked for, some exchanges after it was told, below a system prompt."""
    tell, reply, ask, back = smalltalk.remembered(words)
    between = [smalltalk.small(words) for _ in range(words.rng.choice((0, 1, 2)))]
    messages = [{"role": "system", "content": words.one(smalltalk.SYSTEMS)}]
    for question, answer in ((tell, reply), *between, (ask, back)):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Case(prompt=prompt(Conversation(messages=messages)), wanted=back.split()[-1].rstrip("."))


def sum_case(words: Words) -> Case:
    problem = arithmetic.draw(words)
    ask = arithmetic.question(words, problem)
    made = Conversation(messages=[{"role": "user", "content": ask}, {"role": "assistant", "content": ""}])
    return Case(prompt=prompt(made), wanted=arithmetic.answer(problem))


def idle_case(words: Words) -> Case:
    made = (
        toolcalls.unfitting(words)
        if words.chance(0.5)
        else toolcalls.unneeded(words, (smalltalk if words.chance(0.5) else knowledge).conversation(words))
    )
    made = Conversation(messages=made.messages, tools=made.tools, thinking=True)
    return Case(prompt=prompt(made))


def loops(reply: str) -> bool:
    """A reply that never ends, or says the same 20 characters four times in a row."""
    return not reply.endswith("<|im_end|>") or any(reply[i : i + 20] * 3 in reply for i in range(max(0, len(reply) - 80)))


def answer_of(reply: str) -> str:
    return reply.rpartition("</think>")[2].removesuffix("<|im_end|>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, help="directory of the tokenizer, if it is elsewhere")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--training-split", action="store_true", help="the same on prompts freshly drawn from the words of training")
    args = parser.parse_args()
    device, dtype = (torch.device(args.device), torch.bfloat16 if args.device == "cuda" else torch.float32)
    model, encoding = load_model(args.model, device), tokenizer.load(args.tokenizer or args.model)
    words = Words.of(wordnet.load(args.corpus / "lexicon.jsonl.xz"), 7, test=not args.training_split)
    result: dict[str, Any] = {"count": args.count}
    misses: dict[str, list[list[str]]] = {}

    def judge(name: str, cases: list[Case], limit: int, right: Any) -> None:
        began = time.time()
        replies = greedy(model, encoding, [case.prompt for case in cases], limit, dtype)
        good = [right(case, reply) for case, reply in zip(cases, replies, strict=True)]
        result[name] = round(sum(good) / len(good), 4)
        misses[name] = [[c.prompt[-600:], str(c.wanted), r] for c, r, ok in zip(cases, replies, good, strict=True) if not ok][:60]
        print(name, result[name], f"{time.time() - began:.1f} s", flush=True)
        args.out.write_text(json.dumps(result | {"misses": misses}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    fixed = [Conversation(messages=[{"role": "user", "content": text}, {"role": "assistant", "content": ""}]) for text in FIXED]
    replies = greedy(model, encoding, [prompt(c) for c in fixed], 400, dtype)
    result["fixed"] = [[text, reply] for text, reply in zip(FIXED, replies, strict=True)]

    def calls_equal(case: Case, reply: str) -> bool:
        return calls_in(reply) == case.wanted and reply.endswith("<|im_end|>")

    def uses(case: Case, reply: str) -> bool:
        return all(value in answer_of(reply) for value in case.wanted[1:]) and not loops(reply)

    def asked(draw: Any = toolcalls.any_tool) -> Any:
        return lambda: first_turn(toolcalls.with_calls(words, draw))

    few = max(1, args.count // 3)
    judge("tool_calls_exact", collect(asked(), args.count), 300, calls_equal)
    judge("tool_calls_exact_curated", collect(asked(toolbox.family_tool), few), 300, calls_equal)
    judge("tool_calls_exact_natural", collect(asked(naturals.natural_tool), few), 300, calls_equal)
    judge("tool_calls_exact_random", collect(asked(toolspecs.random_tool), few), 300, calls_equal)
    judge("later_calls_exact", collect(lambda: later_turn(toolcalls.chain(words)), few), 300, calls_equal)
    judge("no_call_right", collect(lambda: idle_case(words), args.count), 120, lambda c, r: "<|tool_call" not in r and r.endswith("<|im_end|>"))
    judge("arithmetic_right", collect(lambda: sum_case(words), args.count), 420, lambda c, r: answer_of(r) == c.wanted)
    judge("results_used", collect(lambda: result_turn(toolcalls.conversation(words)), args.count), 200, uses)
    judge("memory_right", collect(lambda: memory_case(words), few), 40, lambda c, r: c.wanted in answer_of(r))
    judge("plain_without_loops", collect(lambda: plain_case(words), args.count), 256, lambda c, r: not loops(r))


if __name__ == "__main__":
    main()
