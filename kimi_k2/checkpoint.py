"""A Hugging Face checkpoint directory, read lazily."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kimi_k2.config import ModelConfig
from kimi_k2.errors import CheckpointError
from kimi_k2.expert_formats import reader_for
from kimi_k2.expert_weights import ExpertWeights
from kimi_k2.safetensors_file import SafetensorsFile, TensorRead
from kimi_k2.tensor_names import TensorSpec, expert_prefix, router_tensors
from kimi_k2.weights import RouterWeights, router_weights

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_K25_PREFIX = "language_model."
_BYTES_AT_ONCE = 16 << 20
_PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
_DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "I64": torch.int64,
}


StoredExperts = dict[str, dict[str, Tensor]]
"""Projection to suffix to a stack of tensors, one an expert."""


class Checkpoint:
    """Reads what is asked for and nothing else.

    reader: knows the format of the routed experts.
    bytes_read: bytes of tensor data read so far; headers do not count.

    Raises:
        ConfigError: the directory or its `config.json` cannot be used.
        CheckpointError: there are no weights, or in a format without a reader.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = ModelConfig.from_dir(self.path)
        self.bytes_read = 0
        self.reader = reader_for(self.config)
        self._shards: dict[str, SafetensorsFile] = {}
        self._checked: set[tuple[int, int]] = set()

    @cached_property
    def model_hash(self) -> str:
        """Changes with the configuration, any shard's header or size, and its data.

        Of the data it reads samples, which `bytes_read` does not count: enough to tell models
        apart in milliseconds, not to find a single flipped bit.
        """
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for name in sorted(set(self._weight_map.values())):
            shard = self._shard(name)
            digest.update(f"{name} {shard.size}".encode())
            digest.update(shard.header_bytes)
            for sample in shard.samples():
                digest.update(sample)
        return digest.hexdigest()

    def check(self) -> None:
        """Checks every tensor's presence, dtype, shape and bounds without reading its data.

        Raises:
            CheckpointError: names the first tensor that is wrong.
        """
        self._check(router_tensors(self.config))
        for layer in self.config.moe_layers:
            for expert in range(self.config.n_routed_experts):
                self._check_expert(layer, expert)

    def router_weights(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        arrange: Callable[[Tensor], Tensor] = lambda weight: weight,
    ) -> RouterWeights:
        """Everything but the routed experts, in the activation dtype; the gate in float32.

        Args:
            arrange: see `kimi_k2.weights.router_weights`.

        Raises:
            CheckpointError: names a tensor that is missing, truncated, or of the wrong kind.
        """
        specs = router_tensors(self.config)
        self._check(specs)
        stored = self._stacks([[name] for name in specs])
        tensors = {name: stack[0] for name, stack in zip(specs, stored, strict=True)}
        return router_weights(self.config, tensors, dtype, device, arrange)

    def expert_weights(
        self,
        layer: int,
        experts: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        column_major: bool = False,
    ) -> ExpertWeights:
        """The routed experts of one layer, in slots of the given order.

        Args:
            column_major: lay them out as compiled kernels want them.

        Raises:
            CheckpointError: no such expert, or a tensor that is missing, truncated, or of the
                wrong kind.
        """
        width, hidden = self.config.moe_intermediate_size, self.config.hidden_size
        weights = ExpertWeights.empty(len(experts), width, hidden, dtype, device, column_major)
        for some, stored in self.stored_experts(layer, experts):
            weight = {name: self.reader.weight(stored[name]).to(device) for name in stored}
            weights.gate_up[some, :width] = weight["gate_proj"]
            weights.gate_up[some, width:] = weight["up_proj"]
            weights.down[some] = weight["down_proj"]
        return weights

    def stored_experts(
        self, layer: int, experts: Sequence[int]
    ) -> Iterator[tuple[slice, StoredExperts]]:
        """The experts as they are stored, some at a time: which of them, and their tensors.

        Raises:
            CheckpointError: see `expert_weights`.
        """
        config = self.config
        for expert in experts:
            if layer not in config.moe_layers or not 0 <= expert < config.n_routed_experts:
                raise CheckpointError(f"the model has no expert {expert} in layer {layer}")
            self._check_expert(layer, expert)
        at_once = max(1, _BYTES_AT_ONCE // (3 * config.moe_intermediate_size * config.hidden_size))
        suffixes = self.reader.used()
        for first in range(0, len(experts), at_once):
            some = slice(first, first + at_once)
            prefixes = [expert_prefix(layer, expert) for expert in experts[some]]
            kinds = [(name, suffix) for name in _PROJECTIONS for suffix in suffixes]
            stacks = self._stacks(
                [[f"{prefix}{name}.{suffix}" for prefix in prefixes] for name, suffix in kinds]
            )
            stored: StoredExperts = {name: {} for name in _PROJECTIONS}
            for (name, suffix), stack in zip(kinds, stacks, strict=True):
                stored[name][suffix] = stack
            yield some, stored

    def expert_dtypes(self, layer: int, experts: Sequence[int]) -> set[str]:
        """The safetensors dtypes of what is read of the experts.

        Raises:
            CheckpointError: a tensor is missing or truncated.
        """
        names = [
            f"{expert_prefix(layer, expert)}{projection}.{suffix}"
            for expert in experts
            for projection in _PROJECTIONS
            for suffix in self.reader.used()
        ]
        return {self._shard_of(name).entry(self._stored(name)).dtype for name in names}

    def _stacks(self, groups: Sequence[Sequence[str]]) -> list[Tensor]:
        """For each group, tensors of one shape and dtype as one CPU tensor [len(group), ...]."""
        by_shard: dict[SafetensorsFile, list[TensorRead]] = {}
        stacks = []
        for names in groups:
            shards = [self._shard_of(name) for name in names]
            entries = [
                shard.entry(self._stored(name)) for shard, name in zip(shards, names, strict=True)
            ]
            dtype, shape = entries[0].dtype, entries[0].shape
            for entry in entries:
                if entry.dtype != dtype or entry.shape != shape:
                    raise CheckpointError(
                        f"tensor {entry.name} differs in kind from {entries[0].name}"
                    )
            size = prod(shape) * _DTYPES[dtype].itemsize
            raw = np.empty((len(names), size), dtype=np.uint8)
            for shard, entry, buffer in zip(shards, entries, raw, strict=True):
                by_shard.setdefault(shard, []).append(TensorRead(entry=entry, buffer=buffer))
            stacks.append(torch.from_numpy(raw).view(_DTYPES[dtype]).view(len(names), *shape))
        self.bytes_read += sum(shard.read(reads) for shard, reads in by_shard.items())
        return stacks

    @cached_property
    def _expert_specs(self) -> Mapping[str, TensorSpec]:
        """The tensors of any expert, by what follows `expert_prefix`."""
        width, hidden = self.config.moe_intermediate_size, self.config.hidden_size
        shapes = {
            "gate_proj": (width, hidden),
            "up_proj": (width, hidden),
            "down_proj": (hidden, width),
        }
        return {
            f"{projection}.{suffix}": spec
            for projection, (rows, columns) in shapes.items()
            for suffix, spec in self.reader.tensors(rows, columns).items()
        }

    def _check_expert(self, layer: int, expert: int) -> None:
        """Once for each expert: headers are read only once, too."""
        if (layer, expert) in self._checked:
            return
        prefix = expert_prefix(layer, expert)
        self._check({prefix + name: spec for name, spec in self._expert_specs.items()})
        self._checked.add((layer, expert))

    def _check(self, specs: Mapping[str, TensorSpec]) -> None:
        for name, spec in specs.items():
            entry = self._shard_of(name).entry(self._stored(name))
            if entry.dtype not in spec.dtypes:
                wanted = " or ".join(spec.dtypes)
                raise CheckpointError(
                    f"tensor {entry.name} has dtype {entry.dtype}, wanted {wanted}"
                )
            if entry.shape != spec.shape:
                raise CheckpointError(
                    f"tensor {entry.name} has shape {list(entry.shape)}, config.json says"
                    f" {list(spec.shape)}"
                )

    @cached_property
    def _weight_map(self) -> Mapping[str, str]:
        """Stored tensor name to shard file name."""
        index = self.path / _INDEX
        if not index.is_file():
            if not (self.path / _SINGLE).is_file():
                raise CheckpointError(
                    f"{self.path} has neither {_INDEX} nor {_SINGLE}: the weights are missing"
                )
            return dict.fromkeys(self._shard(_SINGLE).names(), _SINGLE)
        try:
            raw = json.loads(index.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{index} cannot be read: {error}") from error
        weight_map = raw.get("weight_map") if isinstance(raw, dict) else None
        if not isinstance(weight_map, dict) or not all(
            isinstance(shard, str) and Path(shard).name == shard
            for shard in set(map(_hashable, weight_map.values()))
        ):
            raise CheckpointError(f"{index} must hold a weight_map of file names")
        return weight_map

    @cached_property
    def _prefix(self) -> str:
        nested = any(name.startswith(_K25_PREFIX) for name in self._weight_map)
        return _K25_PREFIX if nested else ""

    def _stored(self, name: str) -> str:
        return self._prefix + name

    def _shard_of(self, name: str) -> SafetensorsFile:
        shard = self._weight_map.get(self._stored(name))
        if shard is None:
            raise CheckpointError(f"tensor {self._stored(name)} is missing from {self.path}")
        return self._shard(shard)

    def _shard(self, name: str) -> SafetensorsFile:
        if name not in self._shards:
            self._shards[name] = SafetensorsFile(self.path / name)
        return self._shards[name]


def _hashable(value: object) -> str | None:
    return value if isinstance(value, str) else None
