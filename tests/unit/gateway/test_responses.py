from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.responses import event

LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@given(st.text() | st.text(alphabet=LINE_ENDS + "a\\\ud800"))
def test_an_event_is_one_line_to_everybody(text: str) -> None:
    data = event({"x": text})
    (line, empty) = data.decode().splitlines()
    assert (line[:6], empty, data[-2:]) == ("data: ", "", b"\n\n")
    assert json.loads(line[6:]) == {"x": text}
