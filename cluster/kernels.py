"""Compiled kernels are made by one process, before several would make the same at once."""

from __future__ import annotations

import contextlib

from cluster.blueprint import Blueprint
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ModelError
from kimi_k2.numerics import prove_numerics


def compile_kernels(blueprint: Blueprint) -> None:
    """Runs the start-up test of a CPU process here, so that this machine keeps the machine code.

    Says nothing of what fails: the members run the same test and report.
    """
    sections = (blueprint.config.router, blueprint.config.experts)
    if any(section.device == "cpu" for section in sections):
        with contextlib.suppress(ModelError):
            prove_numerics(ModelConfig.from_dir(blueprint.model_dir))
