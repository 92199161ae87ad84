"""Which files of a folder hold its weights, and a fingerprint of them.

Only safetensors files are ever opened: loading one runs nothing, whereas a pickle (`pytorch_model.bin`) may run
anything.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path, PurePosixPath, PureWindowsPath

from attlas.errors import ModelNotFound, StoreError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
_LARGEST_HEADER = 100 * 2**20  # the limit that the safetensors format sets
_SAMPLE = 4096  # bytes read at either end of every tensor


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a model's weights.

    Raises
    ------
    ModelNotFound
        If there are none; pickles, which would have to run code, are named but never opened.
    StoreError
        If the index names a file outside the folder or one that is missing.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [_inside(folder, name) for name in _shards(folder / INDEX)]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ModelNotFound(
            f"{folder}: wanted {SINGLE}, found only {pickles[0]}, whose format can run code when it is opened; "
            "convert it to safetensors where you trust it"
        )
    raise ModelNotFound(f"{folder}: wanted {SINGLE} or {INDEX}, found neither")


def _shards(index: Path) -> list[str]:
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted(set(shards))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{index}: wanted an index with a weight_map of tensor to file, which this is not") from error


def _inside(folder: Path, name: object) -> Path:
    # A link is allowed to lead elsewhere, since a hub's cache consists of links; a name is not.
    plain = (
        isinstance(name, str) and "\0" not in name and PurePosixPath(name).name == PureWindowsPath(name).name == name
    )
    if not plain or not str(name).endswith(".safetensors"):
        raise StoreError(f"{folder / INDEX}: wanted names of safetensors files beside it, got {name!r}")
    path = folder / str(name)
    if not path.is_file():
        raise StoreError(f"{folder}: the weights file {name} is missing; the download is not complete")
    return path


def fingerprint(config: bytes, files: list[Path]) -> str:
    """Return 16 hex digits that change when a model's configuration or weights change.

    A sha256 of the configuration, each file's header, and the first and last 4 KiB of every tensor: milliseconds where
    hashing every byte of a large model would take minutes. Training moves every tensor it touches; a change inside one
    tensor's middle alone would not be noticed.

    Parameters
    ----------
    config : bytes
        The configuration file as it is.
    files : list of Path
        The weights, as `weight_files` returns them.

    Raises
    ------
    StoreError
        If a file is not a whole safetensors file.
    """
    digest = hashlib.sha256(config)
    for path in files:
        header, start = _header(path)
        digest.update(header)
        with path.open("rb") as file:
            for begin, end in _extents(path, header):
                file.seek(start + begin)
                digest.update(file.read(min(_SAMPLE, end - begin)))
                file.seek(start + max(begin, end - _SAMPLE))
                digest.update(file.read(min(_SAMPLE, end - begin)))
    return digest.hexdigest()[:16]


def _header(path: Path) -> tuple[bytes, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(_LARGEST_HEADER, size - 8):
            raise StoreError(f"{path}: not a whole safetensors file (its header does not fit in its {size:,} bytes)")
        return file.read(length), 8 + length


def _extents(path: Path, header: bytes) -> list[tuple[int, int]]:
    room = path.stat().st_size - 8 - len(header)
    try:
        tensors = json.loads(header)
        tensors.pop("__metadata__", None)
        extents = sorted((int(begin), int(end)) for begin, end in (entry["data_offsets"] for entry in tensors.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not a safetensors file (its header lists no tensors)") from error
    if any(not 0 <= begin <= end <= room for begin, end in extents):
        raise StoreError(
            f"{path}: not a whole safetensors file (its header describes more than its {room:,} bytes of data)"
        )
    return extents
