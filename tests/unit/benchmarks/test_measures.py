"""How answers are summed up."""

from __future__ import annotations

import pytest

from benchmarks.serving.load import Answer
from benchmarks.serving.measures import measure


def test_speed_counts_from_the_first_request_to_the_last_token() -> None:
    found = measure(
        [
            Answer(sent_s=10.0, tokens_s=(11.0, 12.0)),
            Answer(sent_s=10.5, tokens_s=(12.0, 14.0)),
        ]
    )
    assert found.tokens_per_s == pytest.approx(1.0)
    assert found.ttft_ms[99] == pytest.approx(1500.0)
    assert found.itl_ms[99] == pytest.approx(2000.0)


def test_tokens_of_one_message_share_the_gap_before_it() -> None:
    found = measure([Answer(sent_s=0.0, tokens_s=(1.0, 2.0, 4.0, 4.0))])
    assert found.itl_ms[99] == pytest.approx(1000.0)


def test_an_answer_of_one_token_has_no_gap() -> None:
    assert measure([Answer(sent_s=0.0, tokens_s=(1.0,))]).itl_ms[50] == 0.0
