"""Every benchmark is a program that starts."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PROGRAMS = [*sorted(path.stem for path in BENCHMARKS.glob("bench_*.py")), "calibrate", "profile"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_it_needs_is_there(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)
