"""The recorded loads of nano-K2's experts, which planners and benchmarks read."""

from __future__ import annotations

import json

from tests.support.checkpoints import NANO_K2


def test_loads_are_complete_and_belong_to_the_model() -> None:
    recorded = json.loads((NANO_K2 / "expert_loads.json").read_text(encoding="utf-8"))
    config = json.loads((NANO_K2 / "config.json").read_text(encoding="utf-8"))
    assert recorded["layers"] == list(
        range(config["first_k_dense_replace"], config["num_hidden_layers"])
    )
    assert recorded["experts"] == config["n_routed_experts"]
    assert recorded["top_k"] == config["num_experts_per_tok"]
    assert set(recorded["loads"]) == set(recorded["tokens"]) == {"chat", "tools", "code", "docs"}
    for domain, rows in recorded["loads"].items():
        assert [len(row) for row in rows] == [recorded["experts"]] * len(recorded["layers"])
        for row in rows:
            assert sum(row) == recorded["tokens"][domain] * recorded["top_k"]


def test_no_expert_is_dead() -> None:
    loads = json.loads((NANO_K2 / "expert_loads.json").read_text(encoding="utf-8"))["loads"]
    for layer in zip(*loads.values(), strict=True):
        assert min(map(sum, zip(*layer, strict=True))) > 0
