"""Traces made into requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving.replay import Scale, replay

_CSV = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,80,8
2023-11-16 18:15:50.6805900,9000,9000
2023-11-16 18:15:56.6805900,1,1
"""
_JSON = """{"timestamp": 0, "input_length": 80, "output_length": 8, "hash_ids": [0]}
{"timestamp": 4000, "input_length": 9000, "output_length": 9000, "hash_ids": [0]}
{"timestamp": 10000, "input_length": 1, "output_length": 1, "hash_ids": [0]}
"""


@pytest.mark.parametrize(("name", "text"), [("trace.csv", _CSV), ("trace.jsonl", _JSON)])
def test_arrivals_are_sped_up_and_lengths_kept_within_bounds(
    tmp_path: Path, name: str, text: str
) -> None:
    trace = tmp_path / name
    trace.write_text(text, encoding="utf-8")
    scale = Scale(load=2.0, seconds=6.0, tokens=0.5, least=2, most_in=100, most_out=50)
    asks = replay(trace, scale, vocab_size=1000)
    assert [ask.at_s for ask in asks] == pytest.approx([0.0, 2.0, 5.0])
    assert [len(ask.prompt) for ask in asks] == [40, 100, 2]
    assert [ask.max_tokens for ask in asks] == [4, 50, 2]


def test_only_what_arrives_in_time_is_replayed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text(_JSON, encoding="utf-8")
    assert [ask.at_s for ask in replay(trace, Scale(seconds=5.0), vocab_size=1000)] == [0.0, 4.0]
    later = Scale(skip_s=3.0, load=2.0)
    assert [ask.at_s for ask in replay(trace, later, vocab_size=1000)] == [0.5, 3.5]


def test_a_trace_of_one_request_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(_CSV.split("2023-11-16 18:15:50")[0], encoding="utf-8")
    with pytest.raises(ValueError, match="1 requests in 20"):
        replay(trace, Scale(), vocab_size=1000)
