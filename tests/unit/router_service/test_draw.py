"""Drawing a token: against a slow oracle, in distribution, and at the edges."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from router_service.draw import draw, draw_slow
from router_service.sampling import SamplingParams
from router_service.uniform import uniform

PINNED = [0.6524484863740322, 0.7012121095215252, 0.8258740021392166]

FILTERS = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 50},
    {"top_k": 300},
    {"top_k": 10_000},
    {"top_p": 0.05},
    {"top_p": 0.9},
    {"top_p": 0.9999},
    {"min_p": 0.1},
    {"min_p": 0.0001},
    {"min_p": 1.0},
    {"top_k": 400, "top_p": 0.95, "min_p": 0.01, "temperature": 1.7},
]


@pytest.mark.parametrize("fields", FILTERS, ids=str)
@pytest.mark.parametrize("vocab", [3, 256, 257, 1500, 5000])
def test_the_fast_way_equals_the_slow_one(vocab: int, fields: dict[str, float]) -> None:
    sampling = SamplingParams(**fields)  # type: ignore[arg-type]
    generator = np.random.default_rng(vocab)
    for sharpness in (0.0, 0.5, 4.0):
        # Rounded, so that there are many ties.
        logits = np.round(generator.standard_normal(vocab) * sharpness, 1)
        logits[generator.integers(vocab)] = -np.inf
        for u in (0.0, *generator.random(2), 0.5, 1.0 - 2.0**-53):
            assert draw(logits, sampling, float(u)) == draw_slow(logits, sampling, float(u))


def test_frequencies_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05]))
    sampling = SamplingParams()
    counts = Counter(draw(logits, sampling, uniform(11, position)) for position in range(20_000))
    assert [counts[token] / 20_000 for token in range(4)] == pytest.approx(
        [0.5, 0.3, 0.15, 0.05], abs=0.015
    )


def test_a_tiny_temperature_takes_the_best() -> None:
    logits = np.array([1.0, 5.0, 4.999])
    assert draw(logits, SamplingParams(temperature=1e-300), 0.999) == 1


def test_forbidden_tokens_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, -1.0])
    drawn = {draw(logits, SamplingParams(), u) for u in (0.0, 0.5, 0.9, 1.0 - 2.0**-53)}
    assert drawn == {1, 3}


def test_equals_are_ordered_by_id() -> None:
    logits = np.zeros(4)
    assert [draw(logits, SamplingParams(), u) for u in (0.0, 0.25, 0.5, 0.75)] == [0, 1, 2, 3]


def test_the_uniform_numbers_are_pinned() -> None:
    """Other values would make a new router continue an old one's requests differently."""
    assert [uniform(0, 0), uniform(0, 1), uniform(2**64 - 1, 131_071)] == PINNED


def test_the_uniform_numbers_are_uniform_in_seed_and_position() -> None:
    for numbers in (
        [uniform(seed, 5) for seed in range(4000)],
        [uniform(5, position) for position in range(4000)],
    ):
        assert all(0.0 <= number < 1.0 for number in numbers)
        counts, _ = np.histogram(numbers, bins=10, range=(0.0, 1.0))
        assert counts.min() > 330
        assert counts.max() < 470
