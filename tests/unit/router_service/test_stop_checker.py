"""When a request ends."""

from __future__ import annotations

from dataclasses import replace

from router_service.outputs import Ending, FinishReason
from router_service.sampling import SamplingParams
from router_service.stop_checker import StopChecker
from tests.unit.router_service.fake_model import FakeDetokenizer

EOS = 1


def checker(max_output: int = 100, **fields: object) -> StopChecker:
    return StopChecker(
        replace(SamplingParams(), **fields),  # type: ignore[arg-type]
        max_output=max_output,
        eos_token_ids=(EOS,),
        new_detokenizer=FakeDetokenizer,
    )


def endings(stops: StopChecker, text: str) -> list[Ending | None]:
    """One token a letter."""
    return [stops.push(ord(letter) - ord("A")) for letter in text]


def stopped_by(stop: str) -> Ending:
    return Ending(reason=FinishReason.STOP, stop_reason=stop)


def test_length_counts_every_output() -> None:
    assert endings(checker(max_output=2), "XX") == [None, Ending(reason=FinishReason.LENGTH)]


def test_end_of_sequence_unless_ignored() -> None:
    assert endings(checker(), "XB")[-1] == Ending(reason=FinishReason.STOP)
    assert endings(checker(ignore_eos=True), "XB")[-1] is None


def test_stop_tokens() -> None:
    assert endings(checker(stop_token_ids=(3,)), "XD")[-1] == Ending(reason=FinishReason.STOP)


def test_stop_strings_across_tokens_and_the_first_to_begin_wins() -> None:
    assert endings(checker(stop=("YZW", "W")), "XYZW")[-1] == stopped_by("YZW")
    assert endings(checker(stop=("YZW", "Z")), "XYZ")[-1] == stopped_by("Z")


def test_a_match_before_min_tokens_is_passed_over_for_good() -> None:
    got = endings(checker(stop=("Y", "QRSTUV"), min_tokens=3), "XYZWY")
    assert got == [None, None, None, None, stopped_by("Y")]


def test_a_match_that_min_tokens_completes_counts() -> None:
    assert endings(checker(stop=("YZ",), min_tokens=3), "XYZ")[-1] == stopped_by("YZ")


def test_a_replay_that_has_ended_already() -> None:
    assert checker(stop=("Y",)).replay([23, 24, 25]) == stopped_by("Y")
    assert checker(stop=("Y",)).replay([23, 25]) is None
    assert checker(max_output=2).replay([23, 25]) == Ending(reason=FinishReason.LENGTH)


def test_a_replay_counts_for_what_follows() -> None:
    stops = checker(stop=("YZ",))
    assert stops.replay([23, 24]) is None
    assert stops.push(25) == stopped_by("YZ")
