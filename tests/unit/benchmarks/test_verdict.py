"""What a soak's samples are taken to mean."""

from __future__ import annotations

import pytest

from benchmarks.soak.verdict import Sample, judge


def samples(
    *, growing_mb: float = 0.0, slower: float = 0.0, count: int = 40, warm_mb: float = 0.0
) -> list[Sample]:
    """A minute apart, 1000 tokens/s; what is named changes evenly over the whole soak."""
    made, tokens = [], 0.0
    for number in range(count):
        part = number / (count - 1)
        tokens += 60_000 * (1 - slower * part)
        warm = warm_mb * min(1.0, 5 * part)
        made.append(
            Sample(
                at_s=60.0 * (number + 1),
                tokens=round(tokens),
                rss_mb={"router": 500 + warm + growing_mb * part, "expert-0": 300.0},
                blocks=60,
                others=0.0,
            )
        )
    return made


def test_a_steady_system_passes() -> None:
    assert judge(samples(warm_mb=100.0), []).complaints == []


def test_growth_is_told_by_process_and_over_the_whole_soak() -> None:
    verdict = judge(samples(growing_mb=40.0), [])
    assert verdict.growth_mb["router"] == pytest.approx(40.0, rel=0.1)
    assert verdict.growth_mb["expert-0"] == 0.0
    assert [text.split(" by ")[0] for text in verdict.complaints] == ["router grew"]


def test_drift_is_told() -> None:
    verdict = judge(samples(slower=0.2), [])
    assert verdict.drift == pytest.approx(0.1, abs=0.02)
    assert "lost" in verdict.complaints[0]


def test_what_is_left_behind_is_a_complaint() -> None:
    assert judge(samples(), ["3 KV blocks are in use by nobody"]).complaints == [
        "3 KV blocks are in use by nobody"
    ]


def test_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="soak for longer"):
        judge(samples(count=7), [])
