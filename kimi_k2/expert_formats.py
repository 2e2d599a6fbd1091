"""The stored formats of routed experts: which tensors, and how they become weights.

A new format (FP8 blocks are next) is a class with the methods of `ExpertReader` and a line in
`reader_for`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kimi_k2.config import ModelConfig
from kimi_k2.errors import UnsupportedFormatError
from kimi_k2.int4 import dequantize
from kimi_k2.quantization import ExpertFormat
from kimi_k2.tensor_names import TensorSpec


class ExpertReader(Protocol):
    """Knows the tensors of one projection of one expert."""

    def tensors(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        """Name suffix to spec, for a projection [rows, columns]."""
        ...

    def used(self) -> tuple[str, ...]:
        """The suffixes whose bytes are needed; the others only have to be there."""
        ...

    def weight(self, stored: Mapping[str, Tensor]) -> Tensor:
        """The effective weight [..., rows, columns] from stacks of the used tensors."""
        ...


class PlainReader:
    """Floating-point tensors, as they are."""

    def tensors(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        return {"weight": TensorSpec(shape=(rows, columns))}

    def used(self) -> tuple[str, ...]:
        return ("weight",)

    def weight(self, stored: Mapping[str, Tensor]) -> Tensor:
        return stored["weight"]


@dataclass(frozen=True, kw_only=True)
class PackQuantizedReader:
    """compressed-tensors INT4, see `kimi_k2.int4`."""

    group_size: int

    def tensors(self, rows: int, columns: int) -> dict[str, TensorSpec]:
        return {
            "weight_packed": TensorSpec(shape=(rows, columns // 8), dtypes=("I32",)),
            "weight_scale": TensorSpec(shape=(rows, columns // self.group_size), dtypes=("BF16",)),
            "weight_shape": TensorSpec(shape=(2,), dtypes=("I32", "I64")),
        }

    def used(self) -> tuple[str, ...]:
        return ("weight_packed", "weight_scale")

    def weight(self, stored: Mapping[str, Tensor]) -> Tensor:
        return dequantize(stored["weight_packed"], stored["weight_scale"])


def reader_for(config: ModelConfig) -> ExpertReader:
    """The reader of the checkpoint's format.

    Raises:
        UnsupportedFormatError: the format has none, or does not fit the sizes of the model.
    """
    quantization = config.quantization
    if quantization is None:
        return PlainReader()
    if quantization.format is ExpertFormat.PACK_QUANTIZED:
        group_size = quantization.group[1]
        if config.hidden_size % group_size or config.moe_intermediate_size % group_size:
            raise UnsupportedFormatError(
                f"hidden_size and moe_intermediate_size must be multiples of the INT4 group size"
                f" {group_size}"
            )
        return PackQuantizedReader(group_size=group_size)
    raise UnsupportedFormatError(
        f"weights in format {quantization.format.value} cannot be read yet; convert the checkpoint"
        " to bfloat16 or to pack-quantized INT4 experts"
    )
