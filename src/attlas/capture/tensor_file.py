"""One safetensors file with a sealed header: written atomically, read by mapping it.

The format is safetensors' own (8 bytes of header length, a JSON header, the tensors' bytes without gaps), so any
safetensors reader opens the file. It is written here because the header must hold each tensor's digest, and because a
file of many gigabytes is streamed from where the tensors lie.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from attlas._writing import Content, write_together
from attlas.errors import StoreError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_HEADER_LIMIT = 100_000_000  # safetensors' own limit
_CHUNK = 2**24


@dataclass(frozen=True)
class StoredFile:
    """What a file holds.

    Parameters
    ----------
    path : Path
        Where it lies.
    description : dict
        What its writer said about it.
    tensors : dict of Tensor
        Memory-mapped; writing to one does not change the file.
    """

    path: Path
    description: dict[str, Any]
    tensors: dict[str, Tensor]


def write_file(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Path:
    """Write tensors and their description, atomically and durably.

    A temporary file in the same folder is written and synced, then takes the name. A crash at any moment leaves the old
    file or the new one.

    Raises
    ------
    StoreError
        It cannot be written; nothing is left behind, and an older file stays as it was.
    """
    if path.is_dir():
        raise StoreError(f"{path}: wanted a file's name, got a folder")
    write_together({path: content_of(tensors, description)}, make_folders=False)
    return path


def content_of(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Content:
    """Return what writes such a file, for one that has to appear together with others (`write_together`)."""
    # The widest dtypes come first, so that every tensor starts at a multiple of its own item size.
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    header = _header(ordered, description)
    return lambda file: _write(file, header, ordered)


def read_file(path: Path, *, check: bool) -> StoredFile:
    """Map a file that `write_file` wrote.

    Parameters
    ----------
    path : Path
        The file.
    check : bool
        Compare every tensor with its digest.

    Raises
    ------
    StoreError
        It is missing, not such a file, truncated or tampered with.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header, start = _read_header(path, file, size)
        description, digests, places = _checked_header(path, header, size - start)
        whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: there is no such file") from error
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    tensors = {}
    for name, (dtype, shape, begin, end) in places.items():
        data = whole[start + begin : start + end]
        if check and _digest(data) != digests.get(name):
            raise StoreError(
                f"{path}: the bytes of {name} are not those that were saved; the file was damaged or tampered with"
            )
        tensors[name] = data.view(dtype).view(shape)
    return StoredFile(path, description, tensors)


# ---- writing


def _header(tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> bytes:
    entries: dict[str, Any] = {}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.numel() * tensor.dtype.itemsize
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    digests = {name: _digest(_bytes_of(tensor)) for name, tensor in tensors.items()}
    metadata = {"description": json.dumps(description), "digests": json.dumps(digests)}
    metadata["seal"] = _seal({**entries, "__metadata__": metadata})
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    if len(header) > _HEADER_LIMIT - 8:
        raise StoreError(
            f"the description of the capture takes {len(header):,} bytes, where safetensors allows {_HEADER_LIMIT:,}"
        )
    return header + b" " * (-len(header) % 8)


def _write(file: BinaryIO, header: bytes, tensors: Mapping[str, Tensor]) -> None:
    file.write(len(header).to_bytes(8, "little"))
    file.write(header)
    for tensor in tensors.values():
        file.write(_bytes_of(tensor).numpy().data)


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _digest(data: Tensor) -> str:
    state = hashlib.sha256()
    for chunk in data.split(_CHUNK):
        state.update(chunk.numpy().data)
    return state.hexdigest()


def _seal(header: Mapping[str, Any]) -> str:
    """Return a digest of the header without its seal, whatever the order of its entries."""
    metadata = {name: value for name, value in header["__metadata__"].items() if name != "seal"}
    canonical = json.dumps({**header, "__metadata__": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


# ---- reading


def _read_header(path: Path, file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """Return the header as JSON, and where the tensors start."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length < 2 or length > min(size - 8, _HEADER_LIMIT):
        raise StoreError(f"{path}: wanted a safetensors file, got {size:,} bytes that do not start with a header")
    try:
        header = json.loads(file.read(length))
    # A header nested thousands deep exhausts the parser's stack.
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: wanted a safetensors file, got a header that is not JSON") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise StoreError(f"{path}: wanted an attlas capture, got a safetensors file of another kind")
    return header, 8 + length


def _checked_header(
    path: Path, header: dict[str, Any], n_bytes: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, tuple[torch.dtype, list[int], int, int]]]:
    metadata = header["__metadata__"]
    if not {"description", "digests", "seal"} <= metadata.keys():
        raise StoreError(f"{path}: wanted an attlas capture, got a safetensors file of another kind")
    if _seal(header) != metadata["seal"]:
        raise StoreError(f"{path}: its header is not the one that was saved; the file was damaged or tampered with")
    try:
        description, digests = json.loads(metadata["description"]), json.loads(metadata["digests"])
        places = {name: _place(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"{path}: its header is malformed ({error})") from error
    if not isinstance(description, dict) or not isinstance(digests, dict):
        raise StoreError(f"{path}: its header is malformed (no description)")
    reached = 0
    for name, (dtype, _, begin, end) in sorted(places.items(), key=lambda item: (item[1][2], item[1][3])):
        if begin != reached or begin % dtype.itemsize:
            raise StoreError(f"{path}: tensors overlap or leave gaps at {name}")
        reached = end
    if reached != n_bytes:
        raise StoreError(
            f"{path}: wanted {reached:,} bytes of tensors, got {n_bytes:,}; the file is truncated or was added to"
        )
    return description, digests, places


def _place(entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    dtype, shape, (begin, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise ValueError("sizes and offsets are whole numbers from 0")
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"shape {shape} does not fill {end - begin} bytes")
    return dtype, shape, begin, end
