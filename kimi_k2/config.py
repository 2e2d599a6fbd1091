"""The architecture of a checkpoint, read from its Hugging Face `config.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kimi_k2.errors import ConfigError
from kimi_k2.quantization import ExpertQuantization
from kimi_k2.yarn import YarnConfig

_MODEL_TYPES = ("kimi_k2", "deepseek_v3")
_NESTED = "text_config"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The fields of `config.json` that change what is computed, under their own names.

    eos_token_ids: `eos_token_id` of `generation_config.json` if there is one, else of
        `config.json`, as a tuple.
    quantization: how the routed experts are stored; None for plain floating-point tensors.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    n_shared_experts: int
    n_routed_experts: int
    routed_scaling_factor: float
    kv_lora_rank: int
    q_lora_rank: int | None
    qk_rope_head_dim: int
    v_head_dim: int
    qk_nope_head_dim: int
    n_group: int
    topk_group: int
    num_experts_per_tok: int
    first_k_dense_replace: int
    moe_layer_freq: int
    norm_topk_prob: bool
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    tie_word_embeddings: bool
    rope_scaling: YarnConfig | None
    quantization: ExpertQuantization | None
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Width of one token's KV cache row: the latent and then the rope part."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the layers with routed experts, ascending."""
        return tuple(
            layer
            for layer in range(self.first_k_dense_replace, self.num_hidden_layers)
            if layer % self.moe_layer_freq == 0
        )

    @classmethod
    def from_dir(cls, path: Path | str) -> ModelConfig:
        """Reads `config.json` (and `generation_config.json` if present) of a model directory.

        Raises:
            ConfigError: the directory or file is missing, or a value cannot be served.
        """
        directory = Path(path)
        if not directory.is_dir():
            raise ConfigError(
                f"there is no model directory at {directory}: give the path of a directory with"
                " config.json and safetensors files"
            )
        raw = _read_json(directory / "config.json")
        generation = directory / "generation_config.json"
        eos = _read_json(generation).get("eos_token_id") if generation.is_file() else None
        return cls.from_dict(raw, eos_token_id=eos)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], eos_token_id: object = None) -> ModelConfig:
        """The configuration in a parsed `config.json`, or in its `text_config` (K2.5).

        Args:
            raw: the parsed file; keys that change nothing here are allowed.
            eos_token_id: takes the place of the file's own one unless None.

        Raises:
            ConfigError: a field is missing, has the wrong type, or cannot be served.
        """
        fields = _Fields(_text_config(raw))
        eos = _first_given(eos_token_id, fields.get("eos_token_id"), raw.get("eos_token_id"))
        _refuse_other_architectures(fields)
        config = cls(
            vocab_size=fields.size("vocab_size"),
            hidden_size=fields.size("hidden_size"),
            intermediate_size=fields.size("intermediate_size"),
            moe_intermediate_size=fields.size("moe_intermediate_size"),
            num_hidden_layers=fields.size("num_hidden_layers"),
            num_attention_heads=fields.size("num_attention_heads"),
            n_shared_experts=fields.size("n_shared_experts"),
            n_routed_experts=fields.size("n_routed_experts"),
            routed_scaling_factor=fields.number("routed_scaling_factor"),
            kv_lora_rank=fields.size("kv_lora_rank"),
            q_lora_rank=fields.size("q_lora_rank") if fields.get("q_lora_rank") else None,
            qk_rope_head_dim=fields.size("qk_rope_head_dim"),
            v_head_dim=fields.size("v_head_dim"),
            qk_nope_head_dim=fields.size("qk_nope_head_dim"),
            n_group=fields.size("n_group", 1),
            topk_group=fields.size("topk_group", 1),
            num_experts_per_tok=fields.size("num_experts_per_tok"),
            first_k_dense_replace=fields.count("first_k_dense_replace", 0),
            moe_layer_freq=fields.size("moe_layer_freq", 1),
            norm_topk_prob=fields.flag("norm_topk_prob", True),
            max_position_embeddings=fields.size("max_position_embeddings"),
            rms_norm_eps=fields.number("rms_norm_eps", above=0.0),
            rope_theta=_rope_theta(fields),
            tie_word_embeddings=fields.flag("tie_word_embeddings", False),
            rope_scaling=_yarn(fields),
            quantization=ExpertQuantization.from_config(
                fields.get("quantization_config") or raw.get("quantization_config")
            ),
            eos_token_ids=_ids("eos_token_id", eos, fields.size("vocab_size")),
            bos_token_id=_bos(fields),
        )
        _check_gate(config)
        return config


class _Fields:
    """Typed access to a parsed `config.json`, so that each wrong value is named."""

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self._raw = raw

    def get(self, name: str, default: Any = None) -> Any:
        return self._raw.get(name, default)

    def count(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigError(f"config.json: {name} must be a whole number, not {value!r}")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.count(name, default)
        if value == 0:
            raise ConfigError(f"config.json: {name} must be at least 1")
        return value

    def number(self, name: str, above: float = -math.inf) -> float:
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"config.json: {name} must be a number, not {value!r}")
        if not above < value < math.inf:
            bound = "finite" if above == -math.inf else f"finite and above {above:g}"
            raise ConfigError(f"config.json: {name} must be {bound}, not {value!r}")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise ConfigError(f"config.json: {name} must be true or false, not {value!r}")
        return value


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing: the model directory must hold a Hugging Face checkpoint"
        ) from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a JSON object")
    return raw


def _text_config(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    nested = raw.get(_NESTED)
    return nested if isinstance(nested, dict) else raw


def _refuse_other_architectures(fields: _Fields) -> None:
    if fields.get("model_type") not in _MODEL_TYPES:
        raise ConfigError(
            f"config.json: model_type {fields.get('model_type')!r} is not served, only"
            f" {' and '.join(_MODEL_TYPES)}"
        )
    only = {
        "hidden_act": "silu",
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "attention_bias": False,
        "rope_interleave": True,
    }
    for name, wanted in only.items():
        if fields.get(name, wanted) != wanted:
            raise ConfigError(
                f"config.json: {name} {fields.get(name)!r} is not served, only {wanted!r}"
            )


def _rope_parameters(fields: _Fields) -> Mapping[str, Any]:
    """Newer transformers write `rope_parameters`, which also holds the theta."""
    found = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
    if not isinstance(found, dict):
        raise ConfigError(f"config.json: rope_scaling must be an object, not {found!r}")
    return found


def _rope_theta(fields: _Fields) -> float:
    theta = fields.get("rope_theta", _rope_parameters(fields).get("rope_theta", 10000.0))
    return _Fields({"rope_theta": theta}).number("rope_theta", above=0.0)


def _yarn(fields: _Fields) -> YarnConfig | None:
    parameters = _rope_parameters(fields)
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise ConfigError(f"config.json: rope scaling {kind!r} is not served, only 'yarn'")
    return YarnConfig.from_dict(parameters)


def _first_given(*values: object) -> object:
    return next((value for value in values if value is not None), None)


def _bos(fields: _Fields) -> int | None:
    ids = _ids("bos_token_id", fields.get("bos_token_id"), fields.size("vocab_size"))
    return ids[0] if ids else None


def _ids(name: str, value: object, vocab_size: int) -> tuple[int, ...]:
    ids = value if isinstance(value, list | tuple) else () if value is None else (value,)
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
        raise ConfigError(f"{name} must be a token id or a list of them, not {value!r}")
    if not all(0 <= i < vocab_size for i in ids):
        raise ConfigError(
            f"{name} {value!r} is outside the vocabulary: ids are below vocab_size {vocab_size}"
        )
    return tuple(ids)


def _check_gate(config: ModelConfig) -> None:
    if config.n_routed_experts % config.n_group:
        raise ConfigError("config.json: n_routed_experts must be a multiple of n_group")
    if config.topk_group > config.n_group:
        raise ConfigError("config.json: topk_group must not exceed n_group")
    eligible = config.n_routed_experts // config.n_group * config.topk_group
    if config.num_experts_per_tok > eligible:
        raise ConfigError(
            f"config.json: num_experts_per_tok {config.num_experts_per_tok} exceeds the"
            f" {eligible} experts of topk_group groups"
        )
    if config.n_group > 1 and config.n_routed_experts // config.n_group < 2:
        raise ConfigError("config.json: groups need at least 2 experts each")
    if config.qk_rope_head_dim % 2:
        raise ConfigError("config.json: qk_rope_head_dim must be even")
