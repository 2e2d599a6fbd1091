"""What the programs promise that write nano-K2's conversations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support.checkpoints import NANO_K2

Script = Callable[[str], ModuleType]
KINDS = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def calls_of(conversation: Any) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(index of the message, tool's name, arguments) of every call."""
    for index, message in enumerate(conversation.messages):
        for call in message.get("tool_calls", []):
            yield index, call["function"]["name"], json.loads(call["function"]["arguments"])


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """The part of JSON Schema that the generators use."""
    kind = schema["type"]
    if kind == "array":
        return isinstance(value, list) and all(fits(item, schema["items"]) for item in value)
    if kind == "object":
        inner = schema["properties"]
        return set(schema.get("required", [])) <= set(value) <= set(inner) and all(
            fits(item, inner[name]) for name, item in value.items()
        )
    right = isinstance(value, KINDS[kind]) and (kind == "boolean") == isinstance(value, bool)
    return right and value in schema.get("enum", [value])


def leaves(value: Any) -> Iterator[Any]:
    """Single values of arguments, in any depth."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    else:
        yield value


@pytest.mark.parametrize("test", [False, True])
def test_calls_fit_the_declared_schemas(script: Script, words: Any, test: bool) -> None:
    """Chains are left out: a number that a result held is passed on as a number where the next tool
    declares a string. The weights were trained so; the card says it."""
    source, seen = words(3, test=test), 0
    for _ in range(400):
        made = script("toolcalls").conversation(source)
        if made.kind == "chain":
            continue
        declared = {tool["function"]["name"]: tool["function"] for tool in made.tools}
        assert len(declared) == len(made.tools)
        for _, name, arguments in calls_of(made):
            assert fits(arguments, declared[name]["parameters"]), (name, arguments)
            seen += 1
    assert seen > 300


@pytest.mark.parametrize("test", [False, True])
def test_what_a_call_says_can_be_copied_from_the_conversation(
    script: Script, words: Any, test: bool
) -> None:
    source = words(5, test=test)
    for _ in range(400):
        made = script("toolcalls").conversation(source)
        for index, name, arguments in calls_of(made):
            before = " ".join(str(m["content"]) for m in made.messages[:index])
            for value in leaves(arguments):
                if not isinstance(value, bool):
                    assert str(value) in before, (name, value, before)


def test_calls_are_counted_over_the_whole_conversation(script: Script, words: Any) -> None:
    source = words(6)
    for _ in range(200):
        made = script("toolcalls").conversation(source)
        ids = [c["id"] for m in made.messages for c in m.get("tool_calls", [])]
        assert [int(each.rpartition(":")[2]) for each in ids] == list(range(len(ids)))
        results = [m["tool_call_id"] for m in made.messages if m["role"] == "tool"]
        assert results == ids[: len(results)]


def test_a_seed_gives_one_stream_of_conversations(script: Script, words: Any) -> None:
    conversation = script("conversations").conversation

    def made(seed: int) -> list[Any]:
        source = words(seed)
        return [conversation(source) for _ in range(60)]

    assert made(1) == made(1)
    assert made(1) != made(2)


def test_training_and_test_share_no_name(script: Script, words: Any) -> None:
    drawn: list[set[str]] = []
    for test in (False, True):
        source = words(4, test=test)
        draws = (source.word, source.noun, source.verb, source.adjective, source.made_up)
        drawn.append({draw() for draw in draws for _ in range(1500)})
        drawn[-1] |= {source.city() for _ in range(1500)} | {source.first() for _ in range(1500)}
    train, test_words = drawn
    assert len(test_words) > 300
    assert not train & test_words
    assert {script("words").in_test(word) for word in test_words} == {True}


def test_families_of_tools_are_kept_for_testing(script: Script, words: Any) -> None:
    train, test = (
        {script("toolbox").family_tool(words(seed, test=test)).family for seed in range(150)}
        for test in (False, True)
    )
    assert len(test) == script("families").HELD_OUT
    assert not train & test


def test_sums_of_the_test_split_are_never_trained(script: Script, words: Any) -> None:
    arithmetic = script("arithmetic")
    train, test = (
        {arithmetic.draw(source) for _ in range(3000)} for source in (words(1), words(1, test=True))
    )
    assert not train & test


def test_the_work_of_a_sum_ends_in_its_result(script: Script, words: Any) -> None:
    arithmetic, source = script("arithmetic"), words(8)
    for _ in range(1000):
        problem = arithmetic.draw(source)
        signs = {"+": "__add__", "-": "__sub__", "*": "__mul__"}
        if problem.op in signs:
            assert problem.result == str(getattr(problem.a, signs[problem.op])(problem.b))
        if "*" not in problem.op or min(problem.a, problem.b) > 0:
            assert arithmetic.thought(problem).endswith(f"{problem.result}.")


@pytest.mark.parametrize("test", [False, True])
def test_the_twin_of_the_template_writes_what_the_template_writes(
    script: Script, words: Any, test: bool
) -> None:
    source = words(9, test=test)
    made = [script("conversations").conversation(source) for _ in range(150)]
    script("chat").check_template(made, NANO_K2)


def test_a_call_is_read_back_as_it_was_written(script: Script, words: Any) -> None:
    source, evaluate = words(10, test=True), script("evaluate")
    for _ in range(100):
        made = script("toolcalls").with_calls(source)
        case = evaluate.first_turn(made)
        message = next(m for m in made.messages if m["role"] == "assistant")
        if case is not None:
            reply = script("chat").calls_text(message)
            assert evaluate.calls_in(reply) == case.wanted
