"""The ways to name experts on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from experts_service.config import WorkerConfig
from experts_service.named_experts import parse_experts
from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError
from tests.support.checkpoints import config_dict

CONFIG = ModelConfig.from_dict(config_dict())


def test_forms(tmp_path: Path) -> None:
    everything = tuple(range(16))
    assert parse_experts("all", CONFIG) == {1: everything, 2: everything}
    assert parse_experts("", CONFIG) == {}
    assert parse_experts("2:7,1:0-2, 1:2-3", CONFIG) == {1: (0, 1, 2, 3), 2: (7,)}
    file = tmp_path / "e.json"
    file.write_text('{"2": [3, 1]}')
    assert parse_experts(str(file), CONFIG) == {2: (1, 3)}


@pytest.mark.parametrize(
    "spec", ["0:1", "3:1", "1:16", "1:5-16", "1", "1:", "1:a", "1:2-", "all,1:2", "gone.json"]
)
def test_nonsense_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse_experts(spec, CONFIG)


@pytest.mark.parametrize("text", ["[]", "{", '{"1": 5}', '{"x": [1]}', '{"1": ["a"]}'])
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.json"):
        parse_experts(str(file), CONFIG)


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="max_batch_rows"):
        WorkerConfig(worker_id="w", model=Path(), experts={}, max_batch_rows=0)
