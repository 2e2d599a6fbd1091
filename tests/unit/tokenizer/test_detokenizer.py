from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_k2.detokenizer import IncrementalDetokenizer
from tests.support.tiny_tokenizer import tiny_tokenizer

TINY = tiny_tokenizer()


def test_an_incomplete_character_is_held_back() -> None:
    text = IncrementalDetokenizer(TINY)
    face = "\U0001f642".encode()
    assert [text.push([byte]) for byte in face] == ["", "", "", "\U0001f642"]
    assert text.finish() == ""


def test_what_never_completes_is_replaced_at_the_end() -> None:
    text = IncrementalDetokenizer(TINY)
    assert text.push([0xE4, 0xB8]) == ""
    assert text.finish() == "\ufffd"
    assert text.push([0x61]) == "a"


def test_what_cannot_complete_is_replaced_at_once() -> None:
    assert IncrementalDetokenizer(TINY).push([0xE4, 0x61]) == "\ufffda"


def test_control_tokens_show_only_when_wanted() -> None:
    ids = TINY.encode_with_special("a<think>b")
    assert IncrementalDetokenizer(TINY).push(ids) == "ab"
    assert IncrementalDetokenizer(TINY, skip_special=False).push(ids) == "a<think>b"


@given(st.lists(st.integers(0, TINY.vocab_size - 1)), st.lists(st.integers(0, 20)))
@settings(deadline=None)
def test_any_cutting_gives_the_text_of_the_whole(ids: list[int], cuts: list[int]) -> None:
    detokenizer = IncrementalDetokenizer(TINY, skip_special=False)
    got, start = "", 0
    for cut in cuts:
        got += detokenizer.push(ids[start : start + cut])
        start += cut
    got += detokenizer.push(ids[start:]) + detokenizer.finish()
    assert got == TINY.decode(ids)
