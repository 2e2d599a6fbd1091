from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimi_k2.errors import TokenizerError
from kimi_k2.tokenizer import _K2_PATTERN, Tokenizer, _pieces, read_ranks
from tests.support.tiny_tokenizer import SPECIALS, tiny_tokenizer

ROOT = Path(__file__).parents[3]
KIMI = ROOT.parent / "shared" / "data" / "kimi-k2"
NANO = ROOT / "models" / "nano-k2"
TINY = tiny_tokenizer()


@pytest.fixture(scope="module")
def kimi() -> Tokenizer:
    if not KIMI.is_dir():
        pytest.skip(f"the real K2 vocabulary is not at {KIMI}")
    facts = json.loads((KIMI / "tokenizer_facts.json").read_text(encoding="utf-8"))
    return Tokenizer(read_ranks(KIMI / "tiktoken.model"), facts["special_tokens"])


def write_tokenizer(folder: Path, **config: object) -> None:
    ranks = {bytes([i]): i for i in range(256)}
    lines = (f"{base64.b64encode(b).decode()} {i}\n" for b, i in ranks.items())
    (folder / "tiktoken.model").write_text("".join(lines))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_the_real_k2_vocabulary_gives_the_recorded_ids(kimi: Tokenizer) -> None:
    facts = json.loads((KIMI / "tokenizer_facts.json").read_text(encoding="utf-8"))
    assert facts["pat_str"] == _K2_PATTERN
    lines = (KIMI / "encode.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 50
    for case in map(json.loads, lines):
        assert kimi.encode(case["text"]) == case["ordinary_ids"], case["text"]
        assert kimi.encode_with_special(case["text"]) == case["special_ids"], case["text"]
        assert kimi.decode(case["ordinary_ids"]) == case["text"]
        assert kimi.decode(case["special_ids"]) == case["text"]
    assert kimi.vocab_size == 163840


@pytest.mark.parametrize("unit", ["a", " ", "\n", "!", "1", "aB", "中", "e\u0301", "\U0001f642"])
def test_an_endless_run_is_encoded_quickly(kimi: Tokenizer, unit: str) -> None:
    text = unit * 150_000
    start = time.monotonic()
    assert kimi.decode(kimi.encode(text)) == text
    assert time.monotonic() - start < 5


def oracle_pieces(text: str) -> list[str]:
    """K2's own cutting, character by character."""
    pieces = []
    for begin in range(0, len(text), 400_000):
        chunk = text[begin : begin + 400_000]
        start, run, is_space = 0, 0, chunk[0].isspace()
        for index, character in enumerate(chunk):
            if character.isspace() != is_space:
                run, is_space = 1, not is_space
            else:
                run += 1
                if run > 25_000:
                    pieces.append(chunk[start:index])
                    start, run = index, 1
        pieces.append(chunk[start:])
    return pieces


@pytest.mark.parametrize("before", ["", "x ", " "])
@pytest.mark.parametrize("unit", ["a", " ", "\x1c"])
@pytest.mark.parametrize("length", [1, 24_999, 25_000, 25_001, 50_000, 50_001, 400_001])
def test_long_runs_are_cut_as_k2_cuts_them(before: str, unit: str, length: int) -> None:
    text = before + unit * length + " b" + unit * length
    assert list(_pieces(text)) == oracle_pieces(text)


def test_nano_k2_loads_and_names_its_control_tokens() -> None:
    if not (NANO / "tiktoken.model").exists():
        pytest.skip("nano-K2 is not in the tree")
    nano = Tokenizer.from_dir(NANO)
    assert nano.encode_with_special("<|im_end|>") == [nano.special_id("<|im_end|>")]
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    assert nano.vocab_size <= config["vocab_size"]


def test_control_tokens_count_only_when_asked_for() -> None:
    end = TINY.special_id("<|im_end|>")
    assert TINY.encode_with_special("hello<|im_end|>") == [TINY.encode("hello")[0], end]
    ids = TINY.encode("hello<|im_end|>")
    assert not any(map(TINY.is_special, ids))
    assert TINY.decode(ids) == "hello<|im_end|>"
    assert TINY.is_special(end)
    assert end in TINY
    assert TINY.vocab_size not in TINY


@given(st.text())
@settings(deadline=None)
def test_text_survives_the_round_trip(text: str) -> None:
    assert TINY.decode(TINY.encode(text)) == text


def test_a_lone_surrogate_is_encoded_as_the_replacement_character() -> None:
    assert TINY.decode(TINY.encode("a\ud800b")) == "a\ufffdb"


def test_unknown_ids_and_names_are_typed_errors() -> None:
    with pytest.raises(TokenizerError, match="999999"):
        TINY.decode([999_999])
    with pytest.raises(TokenizerError, match="no special token 'nope'"):
        TINY.special_id("nope")


def test_unnamed_reserved_ids_exist_too(tmp_path: Path) -> None:
    write_tokenizer(
        tmp_path, added_tokens_decoder={"256": {"content": "[A]"}, "259": {"content": "[B]"}}
    )
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.vocab_size == 260
    assert tokenizer.decode([256, 257, 259]) == "[A]<|reserved_token_257|>[B]"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tokenizer_config.json", None, "cannot read .*tokenizer_config.json"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is malformed"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json is malformed"),
        ("tokenizer_config.json", "{}", "tokenizer_config.json is malformed"),
        ("tiktoken.model", None, "cannot read .*tiktoken.model"),
        ("tiktoken.model", "not base64 at all\n", "line 1: expected"),
        ("tiktoken.model", "YQ== 0\n", "single byte"),
        ("tiktoken.model", "YQ== 7\n", "without gaps"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, text: str | None, message: str) -> None:
    write_tokenizer(tmp_path, added_tokens_decoder={"256": {"content": "[A]"}})
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.from_dir(tmp_path)


def test_overlapping_ids_are_refused() -> None:
    ranks = {bytes([i]): i for i in range(256)}
    with pytest.raises(TokenizerError, match="both an ordinary and a special"):
        Tokenizer(ranks, {SPECIALS[0]: 3})
    with pytest.raises(TokenizerError, match="ids of their own"):
        Tokenizer(ranks, {"[A]": 256, "[B]": 256})


def test_runs_just_below_the_limit_are_cut_quickly() -> None:
    text = ("a" * 24_999 + " " * 24_999) * 20
    start = time.monotonic()
    assert "".join(_pieces(text)) == text
    assert time.monotonic() - start < 2
