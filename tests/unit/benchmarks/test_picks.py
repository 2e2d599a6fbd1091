"""The planner's pick held against the best."""

from __future__ import annotations

from benchmarks.bench_placement import Case, picks


def case(grid: str, in_flight: int, predicted: float, measured: float) -> Case:
    return Case(
        grid=grid,
        rows=32,
        micro_batches=in_flight,
        predicted_ms=predicted,
        measured_ms=measured,
        processor_ms=0.0,
        bound="",
    )


def test_a_pick_for_each_number_in_flight_and_one_over_all() -> None:
    cases = [
        case("1x4", 1, 30.0, 33.0),
        case("4x1", 1, 25.0, 22.0),
        case("1x4", 2, 20.0, 30.0),
        case("4x1", 2, 21.0, 20.0),
    ]
    found = {pick.micro_batches: pick for pick in picks(cases)}
    assert (found[1].chosen, found[1].ratio) == ("4x1 with 1", 1.0)
    assert (found[2].chosen, found[2].best, found[2].ratio) == ("1x4 with 2", "4x1 with 2", 1.5)
    assert (found[0].chosen, found[0].ratio) == ("1x4 with 2", 1.5)
