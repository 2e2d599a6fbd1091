"""Reads single tensors out of a safetensors file, and nothing more than was asked for.

The library's own reader maps files into memory: what it touches cannot be counted, and a file
that is cut short while serving ends the process. Reads here are positioned, straight into the
caller's buffers, adjacent tensors in one call.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kimi_k2.errors import CheckpointError

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 1 << 28
_MAX_BUFFERS = 512
_SAMPLES = 64
_SAMPLE_BYTES = 4096
_ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_ITEM_SIZES |= {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


class TensorEntry(NamedTuple):
    """Where a tensor lies: `begin` and `end` are byte offsets in the file.

    A tuple, since a checkpoint has hundreds of thousands.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorRead(NamedTuple):
    """A tensor and the buffer for it: contiguous uint8 of exactly the tensor's size."""

    entry: TensorEntry
    buffer: NDArray[np.uint8]


class SafetensorsFile:
    """One shard: its header is read at once, tensors on demand.

    Raises:
        CheckpointError: the file is missing or not a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.size = path.stat().st_size
            with path.open("rb") as file:
                self.header_bytes = self._read_header(file.read(_LENGTH.size), file.read)
        except OSError as error:
            raise CheckpointError(f"shard {path} cannot be read: {error.strerror}") from error
        self._data_start = _LENGTH.size + len(self.header_bytes)
        try:
            header = json.loads(self.header_bytes)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"shard {path} has a malformed header: {error}") from error
        if not isinstance(header, dict):
            raise CheckpointError(f"shard {path} has a malformed header: not an object")
        header.pop("__metadata__", None)
        self._header: dict[str, Any] = header

    def names(self) -> list[str]:
        return list(self._header)

    def samples(self) -> Iterator[bytes]:
        """Pieces of the data, at fixed fractions of it.

        Raises:
            CheckpointError: the file cannot be read.
        """
        last = max(0, self.size - self._data_start - _SAMPLE_BYTES)
        try:
            with self.path.open("rb") as file:
                for number in range(_SAMPLES):
                    offset = self._data_start + last * number // (_SAMPLES - 1)
                    yield os.pread(file.fileno(), _SAMPLE_BYTES, offset)
        except OSError as error:
            raise CheckpointError(f"shard {self.path} cannot be read: {error.strerror}") from error

    def entry(self, name: str) -> TensorEntry:
        """Where a tensor lies.

        Raises:
            CheckpointError: there is no such tensor, its entry is malformed, or the file ends
                before it.
        """
        raw = self._header.get(name)
        if raw is None:
            raise CheckpointError(f"tensor {name} is missing from shard {self.path}")
        if not _well_formed(raw):
            raise CheckpointError(f"tensor {name} has a malformed entry in {self.path}")
        begin, end = raw["data_offsets"]
        start = self._data_start
        entry = TensorEntry(name, raw["dtype"], tuple(raw["shape"]), start + begin, start + end)
        if entry.end > self.size:
            raise CheckpointError(
                f"tensor {name} is truncated: it ends at byte {entry.end} of {self.path}, which"
                f" has {self.size} bytes; fetch the file again"
            )
        return entry

    def read(self, reads: Iterable[TensorRead]) -> int:
        """Fills the buffers; returns the number of bytes read.

        Raises:
            CheckpointError: the file ends early.
        """
        ordered = sorted(reads, key=lambda read: read.entry.begin)
        done = 0
        try:
            with self.path.open("rb", buffering=0) as file:
                for run in _adjacent(ordered):
                    done += _read_run(file.fileno(), run, self.path)
        except OSError as error:
            raise CheckpointError(f"shard {self.path} cannot be read: {error.strerror}") from error
        return done

    def _read_header(self, prefix: bytes, read: Any) -> bytes:
        if len(prefix) < _LENGTH.size:
            raise CheckpointError(f"shard {self.path} is truncated: it has no header")
        (length,) = _LENGTH.unpack(prefix)
        if length > _MAX_HEADER:
            raise CheckpointError(f"shard {self.path} is not a safetensors file")
        header: bytes = read(length)
        if len(header) < length:
            raise CheckpointError(f"shard {self.path} is truncated inside its header")
        return header


def _well_formed(raw: Any) -> bool:
    """Whether it says where a tensor of its shape lies. Not a `match`, which takes ten times as
    long."""
    if type(raw) is not dict:
        return False
    dtype, shape, offsets = raw.get("dtype"), raw.get("shape"), raw.get("data_offsets")
    if type(shape) is not list or type(offsets) is not list or len(offsets) != 2:
        return False
    begin, end = offsets
    if type(begin) is not int or type(end) is not int or type(dtype) is not str or begin < 0:
        return False
    for size in shape:
        if type(size) is not int or size < 0:
            return False
    return bool(end - begin == prod(shape) * _ITEM_SIZES.get(dtype, -1))


def _adjacent(ordered: list[TensorRead]) -> Iterator[list[TensorRead]]:
    """Runs of reads that follow each other without a gap."""
    run: list[TensorRead] = []
    for read in ordered:
        if run and (read.entry.begin != run[-1].entry.end or len(run) == _MAX_BUFFERS):
            yield run
            run = []
        run.append(read)
    if run:
        yield run


def _read_run(descriptor: int, run: list[TensorRead], path: Path) -> int:
    offset = run[0].entry.begin
    buffers = [read.buffer.data for read in run]
    total = sum(buffer.nbytes for buffer in buffers)
    done = 0
    while done < total:
        got = os.preadv(descriptor, buffers, offset + done)
        if got == 0:
            names = f"{run[0].entry.name} to {run[-1].entry.name}"
            raise CheckpointError(f"{path} ends inside tensors {names}; fetch the file again")
        done += got
        while buffers and got >= buffers[0].nbytes:
            got -= buffers.pop(0).nbytes
        if got:
            buffers[0] = buffers[0][got:]
    return done
