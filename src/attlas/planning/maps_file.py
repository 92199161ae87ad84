"""Learned feature maps in a safetensors file beside a plan's or a profile's, each by the hash that it is known by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from attlas.capture.tensor_file import write_file
from attlas.patterns import Pattern
from attlas.patterns.features import FeatureMap
from attlas.patterns.linear import Linear


def beside(path: Path) -> Path:
    """Return where the maps of a file lie.

    Not in the place of its suffix: a plan and a profile of the same name have maps of their own.
    """
    return path.with_name(f"{path.name}.safetensors")


def write_maps(patterns: Iterable[Pattern], path: Path, what: str) -> list[str]:
    """Write the learned maps of some patterns beside the file `path`, and return their hashes, sorted.

    Parameters
    ----------
    patterns : iterable of Pattern
    path : Path
        The plan's or profile's own file.
    what : str
        "plan" or "profile"; said in the file. No file is written where there are no maps.
    """
    found = [pattern.features for pattern in patterns if isinstance(pattern, Linear)]
    maps = {one.digest: one for one in found if isinstance(one, FeatureMap)}
    if maps:
        tensors = {f"{digest}.{name}": tensor for digest, one in maps.items() for name, tensor in one.tensors().items()}
        write_file(beside(path), tensors, {"what": f"feature maps of an attlas {what}"})
    return sorted(maps)


def map_in(tensors: Mapping[str, Tensor], digest: str) -> FeatureMap:
    """Return the map that a file has under a hash; whether it is that one, the caller compares.

    Raises
    ------
    ArgumentError
        There is none.
    """
    start = f"{digest}."
    return FeatureMap.from_tensors(
        {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
    )
