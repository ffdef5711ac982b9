"""Tensors of a safetensors file, used where the file has them rather than read into memory."""

import json
import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.diffusion.errors import CheckpointError

#: The floating-point types; numpy has no bfloat16, whose bits are a float32's upper half.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file that is mapped into memory."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    file: mmap.mmap
    start: int
    length: int
    transposed: bool = False

    def data(self) -> memoryview:
        return memoryview(self.file)[self.start : self.start + self.length]

    def array(self) -> np.ndarray:
        """A view of the file; bfloat16 as its bits."""
        values = np.frombuffer(self.data(), DTYPES[self.dtype])
        if self.transposed:
            return values.reshape(self.shape[::-1]).T
        return values.reshape(self.shape)

    def float32(self) -> np.ndarray:
        """The values as float32: the view itself if they are that already, else a copy."""
        if self.dtype == "F32":
            return self.array()
        if self.dtype == "BF16":
            values = (self.array().astype(np.uint32) << 16).view(np.float32)
        else:
            values = self.array().astype(np.float32)
        self.forget()
        return values

    def renamed(self, key: str) -> "StoredTensor":
        return replace(self, key=key)

    def part(self, index: int, count: int) -> "StoredTensor":
        """One of `count` equal parts along the first axis."""
        length, shape = self.length // count, (self.shape[0] // count, *self.shape[1:])
        return replace(self, shape=shape, start=self.start + index * length, length=length)

    def turned(self) -> "StoredTensor":
        """The transpose."""
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    def forget(self) -> None:
        """Gives the pages that reading it took back to the system."""
        first = self.start // mmap.PAGESIZE * mmap.PAGESIZE
        if self.length:
            self.file.madvise(mmap.MADV_DONTNEED, first, self.start + self.length - first)


def read_safetensors(path: Path) -> list[StoredTensor]:
    """The tensors of one file. Raises CheckpointError if it is damaged."""
    mapped, header, data = _open(path)
    length = len(mapped)
    header.pop("__metadata__", None)
    try:
        tensors = [_tensor(key, entry, mapped, data) for key, entry in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read.") from error
    for tensor in tensors:
        known = np.dtype(DTYPES.get(tensor.dtype, "V1")).itemsize
        fits = tensor.length == math.prod(tensor.shape) * known or tensor.dtype not in DTYPES
        if not fits or tensor.start < data or tensor.start + tensor.length > length:
            raise CheckpointError(f"{path} is damaged or cut short: {tensor.key} does not fit.")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a file's writer added to it. Raises CheckpointError if it is damaged."""
    metadata = _open(path)[1].get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _open(path: Path) -> tuple[mmap.mmap, dict[str, Any], int]:
    """The mapped file, its header and where its data begins.

    The format: eight bytes that give the header's length, a JSON header, then the bytes of all
    tensors.
    """
    with path.open("rb") as file:
        length = file.seek(0, 2)
        if length < 8:
            raise CheckpointError(f"{path} is damaged: it has only {length} bytes.")
        # A private mapping, since MindSpore takes only arrays that may be written to.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data = 8 + struct.unpack("<Q", mapped[:8])[0]
    if data > length:
        raise CheckpointError(f"{path} is damaged or cut short: its header is not all there.")
    try:
        header = json.loads(mapped[8:data])
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: its header cannot be read.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is damaged: its header cannot be read.")
    return mapped, header, data


def _tensor(key: str, entry: dict[str, Any], mapped: mmap.mmap, data: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    return StoredTensor(
        key, entry["dtype"], tuple(entry["shape"]), mapped, data + start, end - start
    )
