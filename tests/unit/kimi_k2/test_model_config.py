from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from kimi_k2.config import ModelConfig
from kimi_k2.errors import ConfigError
from kimi_k2.quantization import ExpertFormat
from tests.support.checkpoints import config_dict

CONFIGS = Path(__file__).parents[3].parent / "shared" / "data" / "configs"


def published(name: str) -> Path:
    path = CONFIGS / name
    if not path.is_file():
        pytest.skip(f"{name} is not there: the shared test data is absent")
    return path


def test_k2_instruct_is_read() -> None:
    raw = json.loads(published("kimi-k2-instruct.reconstructed.json").read_text())
    config = ModelConfig.from_dict(raw)
    assert config.moe_layers == tuple(range(1, 61))
    assert config.latent_dim == 576
    assert config.qk_head_dim == 192
    assert config.quantization is not None
    assert config.quantization.format is ExpertFormat.FP8_BLOCK
    assert config.quantization.group == (128, 128)
    assert config.rope_scaling is not None
    assert config.rope_scaling.rotary_scale == 1.0
    assert config.rope_scaling.softmax_scale == pytest.approx(1.813, abs=1e-3)


@pytest.mark.parametrize("nested", [False, True])
def test_k25_is_read(nested: bool) -> None:
    raw = json.loads(published("kimi-k2.5-text.json").read_text())
    config = ModelConfig.from_dict(
        {"model_type": "kimi_k25", "text_config": raw} if nested else raw
    )
    assert config.quantization is not None
    assert config.quantization.format is ExpertFormat.PACK_QUANTIZED
    assert config.quantization.group == (1, 32)
    assert config.eos_token_ids == (163586,)


def test_generation_config_has_the_last_word_on_eos(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_dict({"eos_token_id": 1})))
    assert ModelConfig.from_dir(tmp_path).eos_token_ids == (1,)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3]}))
    assert ModelConfig.from_dir(tmp_path).eos_token_ids == (2, 3)


def test_a_nested_model_ends_with_the_token_of_the_whole() -> None:
    text = config_dict()
    raw = {"model_type": "kimi_k25", "text_config": text, "eos_token_id": 5}
    assert ModelConfig.from_dict(raw).eos_token_ids == (5,)
    assert ModelConfig.from_dict(raw, eos_token_id=[6]).eos_token_ids == (6,)
    text["eos_token_id"] = 4
    assert ModelConfig.from_dict(raw).eos_token_ids == (4,)


def test_newer_rope_parameters_are_read() -> None:
    raw = config_dict()
    yarn = raw.pop("rope_scaling")
    theta = raw.pop("rope_theta")
    raw["rope_parameters"] = {**yarn, "rope_type": "yarn", "rope_theta": theta}
    assert ModelConfig.from_dict(raw) == ModelConfig.from_dict(config_dict())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"rms_norm_eps": None}, "rms_norm_eps"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"topk_method": "greedy"}, "topk_method"),
        ({"attention_bias": True}, "attention_bias"),
        ({"n_group": 3}, "n_group"),
        ({"topk_group": 2}, "topk_group"),
        ({"num_experts_per_tok": 17}, "num_experts_per_tok"),
        ({"n_group": 4, "topk_group": 1, "num_experts_per_tok": 5}, "num_experts_per_tok"),
        ({"n_group": 16, "topk_group": 8}, "groups"),
        ({"qk_rope_head_dim": 15}, "qk_rope_head_dim"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "linear"),
        ({"rope_scaling": [1]}, "rope_scaling"),
        ({"rope_scaling": {"type": "yarn", "factor": 0}}, "factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "original_max_position_embeddings"),
        ({"eos_token_id": "end"}, "eos_token_id"),
        ({"eos_token_id": 10**9}, "eos_token_id 1000000000 is outside the vocabulary"),
        ({"eos_token_id": [1, -1]}, "eos_token_id .* is outside the vocabulary"),
        ({"bos_token_id": "x"}, "bos_token_id"),
        ({"rope_theta": 0}, "rope_theta must be finite and above 0"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be finite"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps"),
        ({"routed_scaling_factor": float("inf")}, "routed_scaling_factor must be finite"),
        ({"norm_topk_prob": "false"}, "norm_topk_prob must be true or false"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings must be true or false"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": "int4"}, "quantization_config"),
        ({"quantization_config": {"quant_method": "fp8"}}, "weight_block_size"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "pack-quantized"),
    ],
)
def test_what_cannot_be_served_is_named(overrides: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ModelConfig.from_dict(config_dict(overrides, "bfloat16"))


@pytest.mark.parametrize("order", ["group", "weight", "static", True])
def test_ordered_groups_are_refused(order: object) -> None:
    raw = config_dict()
    raw["quantization_config"] = copy.deepcopy(raw["quantization_config"])
    raw["quantization_config"]["config_groups"]["group_0"]["weights"]["actorder"] = order
    with pytest.raises(ConfigError, match="actorder"):
        ModelConfig.from_dict(raw)


def test_several_groups_are_refused() -> None:
    raw = config_dict()
    groups = raw["quantization_config"]["config_groups"]
    raw["quantization_config"] = {
        **raw["quantization_config"],
        "config_groups": {**groups, "group_1": groups["group_0"]},
    }
    with pytest.raises(ConfigError, match="'group_0', 'group_1'"):
        ModelConfig.from_dict(raw)


def test_a_missing_field_is_named() -> None:
    raw = config_dict()
    del raw["kv_lora_rank"]
    with pytest.raises(ConfigError, match="kv_lora_rank"):
        ModelConfig.from_dict(raw)


def test_missing_directory_and_file_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model directory"):
        ModelConfig.from_dir(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"config\.json is missing"):
        ModelConfig.from_dir(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_malformed_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError):
        ModelConfig.from_dir(tmp_path)
