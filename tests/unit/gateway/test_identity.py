"""The same request with the same key is the same answer; anything else is not."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import Identity

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
PATH = "/v1/completions"


def test_a_key_and_a_body_are_one_answer_in_every_process() -> None:
    code = (
        f"from gateway.identity import Identity\nprint(Identity.derived('key', {PATH!r}, {BODY!r}))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert printed == {f"{Identity.derived('key', PATH, BODY)}\n"}


def test_the_order_of_fields_does_not_matter() -> None:
    backwards = dict(reversed(BODY.items()))
    assert list(backwards) != list(BODY)
    assert Identity.derived("k", PATH, backwards) == Identity.derived("k", PATH, BODY)


@given(
    st.lists(
        st.tuples(
            st.text(max_size=3),
            st.sampled_from(["/a", "/ab"]),
            st.dictionaries(st.sampled_from("ab"), st.sampled_from([1, "1", "a", [1], None])),
        ),
        unique_by=repr,
        max_size=6,
    )
)
def test_different_requests_are_different_answers(
    requests: list[tuple[str, str, dict[str, object]]],
) -> None:
    made = [Identity.derived(*request) for request in requests]
    distinct = {(key, path, repr(sorted(body.items()))) for key, path, body in requests}
    assert len({identity.name for identity in made}) == len(distinct)
    assert len({identity.seed for identity in made}) == len(distinct)
    assert all(0 <= identity.seed < 2**63 and len(identity.name) == 32 for identity in made)


def test_without_a_key_every_answer_is_one_of_its_own() -> None:
    first, second = Identity.drawn(), Identity.drawn()
    assert first.name != second.name
    assert first.seed != second.seed
    assert not first.repeatable
    assert first.created > 0
