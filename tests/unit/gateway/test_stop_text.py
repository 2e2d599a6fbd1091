from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.stop_text import StopText

TEXT = st.text(alphabet="ab", max_size=30)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=3)


def test_a_beginning_of_a_stop_string_waits() -> None:
    text = StopText(["END"])
    assert text.push("the E") == "the "
    assert text.push("N") == ""
    assert text.push("x") == "ENx"
    assert text.push("E") == ""
    assert text.flush() == "E"


def test_the_matched_stop_string_and_what_follows_is_dropped() -> None:
    text = StopText(["END", "x"])
    assert text.push("the EN") == "the "
    assert text.push("D of it", matched="END") == ""
    assert text.flush() == ""


def test_a_stop_string_that_the_router_passed_over_goes_out() -> None:
    text = StopText(["END"])
    assert text.push("END.") + text.push("a") == "END.a"


@given(STOPS, st.lists(TEXT))
def test_nothing_is_lost_without_a_match(stops: list[str], parts: list[str]) -> None:
    text = StopText(stops)
    assert "".join(map(text.push, parts)) + text.flush() == "".join(parts)


@given(STOPS.filter(bool), TEXT)
def test_no_character_of_a_match_ever_goes_out(stops: list[str], whole: str) -> None:
    text, out = StopText(stops), ""
    for end, character in enumerate(whole, start=1):
        found = [(whole[:end].index(stop), stop) for stop in stops if stop in whole[:end]]
        out += text.push(character, matched=min(found)[1] if found else "")
        if found:
            assert out == whole[: min(found)[0]]
            return
    assert out + text.flush() == whole
