from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import cluster
from cluster.config import ClusterConfig
from cluster.config_reader import load_config, parse_yaml, read_config, to_tree
from cluster.errors import ConfigError

EXAMPLE = Path(cluster.__file__).parent / "example.yaml"


def test_the_example_names_every_key_with_its_default() -> None:
    tree = parse_yaml(EXAMPLE.read_text(), "example")
    assert read_config(tree) == ClusterConfig()
    assert {name: set(keys) for name, keys in tree.items() if isinstance(keys, dict)} == {
        name: set(keys) for name, keys in to_tree(ClusterConfig()).items() if isinstance(keys, dict)
    }


def test_defaults_serve_the_embedded_model() -> None:
    config = load_config(None, {})
    assert (config.router.replicas, config.experts.workers) == (1, 4)
    assert (config.http.host, config.http.port, config.model.path) == ("127.0.0.1", 8000, "")


def test_file_and_flags_compose(tmp_path: Path) -> None:
    file = tmp_path / "orrery.yaml"
    file.write_text("experts:\n  workers: 3\n  placement: 2+1\nhttp:\n  port: 9000\n")
    config = load_config(file, {"http.port": 9001, "model.path": "/m"})
    assert (config.experts.workers, config.experts.placement) == (3, "2+1")
    assert (config.http.port, config.model.path) == (9001, "/m")
    assert read_config(to_tree(config)) == config


def test_a_whole_number_serves_where_a_fraction_may_stand() -> None:
    assert read_config({"controller": {"health_timeout_s": 3}}).controller.health_timeout_s == 3.0


@pytest.mark.parametrize("value", [0, 32, "twice"])
def test_redundant_experts_are_a_number_or_twice(value: int | str) -> None:
    config = read_config({"experts": {"redundant_experts": value}})
    assert config.experts.redundant_experts == value
    assert read_config(to_tree(config)) == config


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing\nhttp:\n")
    assert load_config(file, {}) == ClusterConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http: {prot: 1}", "unknown key `http.prot`; did you mean `http.port`?"),
        ("expert: {workers: 1}", "unknown key `expert`; did you mean `experts`?"),
        ("http: {zzz: 1}", "unknown key `http.zzz`; `http` knows: host, port"),
        ("http: {port: '8000'}", "`http.port` must be a whole number, got '8000' (text)"),
        ("http: {port: true}", "`http.port` must be a whole number, got True (true/false)"),
        ("http: {port: 8000.0}", "`http.port` must be a whole number, got 8000.0"),
        ("http: {port: 70000}", "`http.port` must be between 1 and 65535, got 70000"),
        ("http: {port: }", "`http.port` must be a whole number, got None (nothing)"),
        ("http: {host: '::1'}", "`http.host` must be an IPv4 address or a host name, got '::1'"),
        ("router: {timeout_s: 0}", "`router.timeout_s` must be between 1 and 86400.0, got 0.0"),
        ("http: {host: [a]}", "`http.host` must be an IPv4 address or a host name, got ['a']"),
        ("http: 8000", "`http` must be a mapping of keys, got a int"),
        ("experts: {workers: 0}", "`experts.workers` must be between 1 and 4096, got 0"),
        ("experts: {placement: 2y2}", "`experts.placement` must be auto, expert-major"),
        ("experts: {placement: 0x4}", "`experts.placement` must be auto, expert-major"),
        ("experts: {device: gpu}", "`experts.device` must be cpu, cuda or cuda:N, got 'gpu'"),
        ("router: {dtype: fp8}", "`router.dtype` must be one of auto, float32, bfloat16"),
        ("router: {prefix_cache: 1}", "`router.prefix_cache` must be true or false, got 1"),
        ("planner: {link_gbps: .inf}", "`planner.link_gbps` must be a number, got inf"),
        ("planner: {link_gbps: 0}", "`planner.link_gbps` must be at least 0.001, got 0.0"),
        ("experts: {redundant_experts: -1}", "`experts.redundant_experts` must be at least 0"),
        ("experts: {redundant_experts: all}", "must be a whole number or twice, got 'all'"),
        ("experts: {redundant_experts: 1.5}", "must be a whole number or twice, got 1.5"),
        ("experts: {redundant_experts: true}", "must be a whole number or twice, got True"),
        ("exactness: loose", "`exactness` must be one of strict, relaxed, got 'loose'"),
        ("[1, 2]", "must hold a mapping of sections"),
        ("http: {port: 1", "is not valid YAML"),
        ("http: {port: 1, port: 2}", "`port` is given twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "orrery.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_says_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no config file at .*nowhere"):
        load_config(tmp_path / "nowhere.yaml", {})


def test_a_flag_cannot_reach_into_a_value() -> None:
    with pytest.raises(ConfigError, match="`exactness` must be a mapping"):
        _lay = {"exactness": "strict", "exactness.deep": 1}
        load_config(None, _lay)


def test_configs_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ClusterConfig().http.port = 1  # type: ignore[misc]
    assert ClusterConfig() == ClusterConfig()
