from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.reply_parser import Delta, ReplyParser
from kimi_k2.tokenizer import Tokenizer
from tests.support.tiny_tokenizer import SPECIALS, tiny_tokenizer

TINY = tiny_tokenizer()
CALL = '<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a":1}<|tool_call_end|>'
SECTION = f"<|tool_calls_section_begin|>{CALL}<|tool_calls_section_end|>"


def joined(deltas: list[Delta]) -> tuple[str, str, list[list[str]]]:
    """(content, reasoning, [[id, name, arguments]])."""
    calls: list[list[str]] = []
    for delta in deltas:
        assert sum((bool(delta.content), bool(delta.reasoning), delta.tool_call is not None)) == 1
        if (call := delta.tool_call) is not None:
            if call.id:
                assert call.index == len(calls)
                calls.append([call.id, call.name, ""])
            calls[call.index][2] += call.arguments
    return "".join(d.content for d in deltas), "".join(d.reasoning for d in deltas), calls


def parse(
    text: str, *, first_call: int | None = 0, reasoning_open: bool = False, step: int = 1
) -> tuple[str, str, list[list[str]]]:
    parser = ReplyParser(TINY, first_call=first_call, reasoning_open=reasoning_open)
    ids = TINY.encode_with_special(text)
    deltas = []
    for start in range(0, len(ids), step):
        deltas += parser.push(ids[start : start + step])
    deltas += parser.finish()
    content, reasoning, calls = joined(deltas)
    assert parser.tool_calls == len(calls)
    return content, reasoning, calls


ADD = ["functions.add:0", "add", '{"a":1}']


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", ("plain", "", [])),
        ("<think>why</think>so", ("so", "why", [])),
        ("a<think>why</think>so", ("aso", "why", [])),
        ("<think>cut off", ("", "cut off", [])),
        ("</think>so", ("so", "", [])),
        (SECTION, ("", "", [ADD])),
        ("Sure." + SECTION, ("Sure.", "", [ADD])),
        (SECTION + "after", ("after", "", [ADD])),
        ("<think>why" + SECTION, ("", "why", [ADD])),
        (CALL, ("", "", [ADD])),
        (
            f"<|tool_calls_section_begin|> \n{CALL}\n{CALL}",
            ("", "", [ADD, ["functions.add:1", *ADD[1:]]]),
        ),
        (SECTION.replace(":0", ":77"), ("", "", [ADD])),
        (SECTION.replace(":0", ""), ("", "", [ADD])),
        (SECTION.replace("functions.", ""), ("", "", [ADD])),
        (SECTION.replace("functions.add:0", " functions.add:0\n"), ("", "", [ADD])),
        (SECTION.replace('{"a":1}', ""), ("", "", [["functions.add:0", "add", "{}"]])),
        (SECTION.replace('{"a":1}', "{broken"), ("", "", [["functions.add:0", "add", "{broken"]])),
        (SECTION.replace("<|tool_call_end|>", ""), ("", "", [ADD])),
        (SECTION.split("}")[0], ("", "", [["functions.add:0", "add", '{"a":1']])),
    ],
)
def test_well_formed_enough(
    text: str, expected: tuple[str, str, list[list[str]]], step: int
) -> None:
    assert parse(text + "<|im_end|>", step=step) == expected


@pytest.mark.parametrize(
    "text",
    [
        SECTION.replace("functions.add:0", ""),
        SECTION.replace("functions.add:0", "what is this?"),
        SECTION.replace("<|tool_call_argument_begin|>", ""),
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_begin|><|tool_calls_section_begin|>",
        "<|tool_calls_section_begin|>words" + CALL.replace("<|tool_call_begin|>", ""),
        "<|tool_calls_section_begin|><|tool_call_begin|>",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0",
        "<|tool_call_end|>",
        "<|tool_call_argument_begin|>x",
        "<|tool_calls_section_end|>",
    ],
)
def test_malformed_calls_are_content(text: str) -> None:
    assert parse(text) == (text, "", [])


def test_without_tools_every_call_is_content() -> None:
    assert parse("a" + SECTION + "b", first_call=None) == ("a" + SECTION + "b", "", [])


def test_ids_go_on_from_the_history() -> None:
    assert parse(SECTION, first_call=5)[2][0][0] == "functions.add:5"


def test_a_prompt_that_left_reasoning_open() -> None:
    assert parse("why</think>so", reasoning_open=True) == ("so", "why", [])


def test_text_that_looks_like_control_tokens_divides_nothing() -> None:
    parser = ReplyParser(TINY, first_call=0)
    content, reasoning, calls = joined(parser.push(TINY.encode("<think>" + SECTION)))
    assert (content, reasoning, calls) == ("<think>" + SECTION, "", [])


def test_arguments_stream_as_they_come() -> None:
    parser = ReplyParser(TINY, first_call=0)
    pushed = [parser.push([index]) for index in TINY.encode_with_special(SECTION)]
    arguments = [
        delta.tool_call.arguments for deltas in pushed for delta in deltas if delta.tool_call
    ]
    assert arguments == ["", *'{"a":1}']


def test_stop_strings_are_held_back_in_every_part() -> None:
    parser = ReplyParser(TINY, stops=["END"])
    ids = TINY.encode_with_special("<think>anE</think>E NoEN")
    deltas = [delta for index in ids for delta in parser.push([index])]
    assert joined(deltas)[:2] == ("E No", "anE")
    deltas += parser.push(TINY.encode("D"), matched="END")
    deltas += parser.finish()
    assert joined(deltas)[:2] == ("E No", "anE")


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("Sure.<|tool_calls_section_begin|><|tool_call_begin|>functions.add", "add", "Sure."),
        ("<|tool_calls_section_begin|><|tool_call_begin|>functions.ad", "ad", ""),
        ("Sure.<|tool_call_begin|>f", "f", "Sure."),
        ("Sure.<|tool_calls_section_begin|>\n", "\n", "Sure."),
        ("a<|tool_calls_section_begin|>END", "END", "a<|tool_calls_section_begin|>"),
    ],
)
def test_a_stop_string_in_an_uncertain_call_shows_nothing_of_either(
    text: str, stop: str, expected: str, step: int
) -> None:
    parser = ReplyParser(TINY, first_call=0, stops=[stop])
    ids = TINY.encode_with_special(text)
    deltas = []
    for start in range(0, len(ids), step):
        last = start + step >= len(ids)
        deltas += parser.push(ids[start : start + step], stop if last else "")
    deltas += parser.finish()
    assert joined(deltas) == (expected, "", [])


def test_a_character_begun_behind_a_stop_string_is_not_shown() -> None:
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"END\xf0": 256}
    tokenizer = Tokenizer(ranks, {})
    parser = ReplyParser(tokenizer, stops=["END"])
    deltas = parser.push([ord("a"), 256], "END") + parser.finish()
    assert joined(deltas) == ("a", "", [])
    # Without a stop string, what is incomplete is shown as such.
    parser = ReplyParser(tokenizer)
    deltas = parser.push([ord("a"), 256]) + parser.finish()
    assert joined(deltas) == ("aEND\ufffd", "", [])


def test_reasoning_is_counted() -> None:
    parser = ReplyParser(TINY)
    parser.push(TINY.encode_with_special("x<think>abc</think>yz"))
    assert parser.reasoning_tokens == len(["a", "b", "c", "</think>"])


PIECES = st.lists(st.sampled_from([*SPECIALS, "functions.f:0", "{}", "a", " ", "é", "\n"]))


@given(PIECES, st.integers(1, 5), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=300)
def test_any_tokens_give_some_reply(
    pieces: list[str], step: int, tools: bool, reasoning_open: bool
) -> None:
    text = "".join(pieces)
    first = 0 if tools else None
    whole = parse(text, first_call=first, reasoning_open=reasoning_open, step=10_000)
    assert parse(text, first_call=first, reasoning_open=reasoning_open, step=step) == whole
    json.dumps(whole)
