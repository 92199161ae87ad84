"""A profile's file: one Parquet table, a row a text, head and pattern, whose metadata holds the rest as JSON.

What is read is not trusted: its size is bounded, it must be a whole grid, and nothing in it names code. Learned feature
maps lie in a safetensors file beside it, and each is compared with the hash by which the profile knows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attlas._writing import write_together
from attlas.capture.tensor_file import read_file
from attlas.errors import AttlasError, StoreError
from attlas.patterns import Pattern
from attlas.patterns.features import FeatureMap
from attlas.patterns.linear import Linear
from attlas.patterns.registry import from_settings
from attlas.planning.costs import CostModel
from attlas.planning.effects import Effects, Head, TextRead
from attlas.planning.losses import NAMES
from attlas.planning.maps_file import beside, map_in, write_maps
from attlas.planning.subject import Subject
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.planning.profile import Profile

FORMAT = "attlas profile"
VERSION = 1

_MOST_ROWS = 2**27


def header(profile: Profile) -> dict[str, Any]:
    """Return all of a profile that is not in its rows, as types that JSON can hold."""
    effects = profile.effects
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": asdict(profile.subject),
        "layers": list(profile.layers),
        "heads": [list(astuple(head)) for head in effects.heads],
        "patterns": [{"kind": pattern.kind, "settings": pattern.settings()} for pattern in effects.patterns],
        "texts": [asdict(text) for text in effects.texts],
        "costs": profile.costs.as_dict(),
        "checks": [asdict(check) for check in profile.checks],
    }


def write_profile(profile: Profile, path: Path) -> Path:
    """Write a profile, and the learned feature maps that it has beside it; return the path of the profile."""
    write_maps(profile.effects.patterns, path, "profile")
    write_together({path: profile.parquet()}, make_folders=False)
    return path


def open_profile(path: str | Path) -> Profile:
    """Read a profile that `Profile.save` wrote.

    Raises
    ------
    StoreError
        The file is missing, is no whole profile, or was written in another version of the format; or learned feature
        maps that belong to it are not beside it.
    """
    import pyarrow
    from pyarrow import parquet

    path = Path(path)
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            described = json.loads(metadata.get(b"profile", b"null"))
            origin = json.loads(metadata.get(b"attlas", b"null"))
            _check_kind(path, described)
            _check_size(path, file.metadata.num_rows, described)
            table = file.read(["text", "layer", "head", "pattern", *NAMES])
    except FileNotFoundError as error:
        raise StoreError(f"{path}: there is no such file; attlas profile writes one") from error
    except StoreError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: wanted a profile that attlas wrote, got another file ({error})") from error
    try:
        return _made(path, described, origin, table)
    except (AttlasError, AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path}: wanted a whole profile, got a damaged one ({error})") from error


def _made(path: Path, described: Mapping[str, Any], origin: Mapping[str, Any], table: Any) -> Profile:
    from attlas.planning.profile import Check, Profile

    heads = tuple(Head(*entry) for entry in described["heads"])
    patterns = _patterns(path, described["patterns"])
    texts = tuple(TextRead(**entry) for entry in described["texts"])
    grid = [(t, h.layer, h.head, p) for t in range(len(texts)) for h in heads for p in range(len(patterns))]
    places = zip(*(table[name].to_pylist() for name in ("text", "layer", "head", "pattern")), strict=True)
    if list(places) != grid:
        raise StoreError(f"{path}: wanted a row for every text, head and pattern in order, got others")
    shape = (len(texts), len(heads), len(patterns))
    values = {name: _column(table[name].to_pylist()).view(shape) for name in NAMES}
    checks = tuple(
        Check(**{**entry, **{name: tuple(entry[name]) for name in ("texts", "rises", "luck")}})
        for entry in described["checks"]
    )
    return Profile(
        Effects(heads, patterns, texts, values),
        CostModel.from_dict(described["costs"]),
        checks,
        Subject(**described["model"]),
        tuple(described["layers"]),
        Provenance(**origin),
    )


def _column(numbers: Sequence[float | None]) -> Tensor:
    return torch.tensor([torch.nan if x is None else float(x) for x in numbers], dtype=torch.float64)


def _check_kind(path: Path, described: object) -> None:
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise StoreError(f"{path}: wanted a profile that attlas wrote, got a table of another kind")
    if described.get("version") != VERSION:
        raise StoreError(
            f"{path}: wanted a profile of format version {VERSION}, got version {described.get('version')!r:.20}; "
            "make the profile again, or use the version of attlas that wrote it"
        )


def _check_size(path: Path, rows: int, described: Mapping[str, Any]) -> None:
    lists = [described.get(name) for name in ("texts", "heads", "patterns")]
    sizes = [len(one) if isinstance(one, list) else 0 for one in lists]
    if rows != sizes[0] * sizes[1] * sizes[2] or not 0 < rows <= _MOST_ROWS:
        raise StoreError(f"{path}: wanted a row for every text, head and pattern, got {rows:,} rows for {sizes}")


def _patterns(path: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[Pattern, ...]:
    maps: dict[str, FeatureMap] | None = None
    found: list[Pattern] = []
    for entry in entries:
        kind, settings = entry["kind"], entry["settings"]
        if kind != Linear.kind:
            found.append(from_settings(kind, settings))
            continue
        maps = _maps(path) if maps is None else maps
        found.append(Linear.from_settings(settings, maps))
    return tuple(found)


def _maps(path: Path) -> dict[str, FeatureMap]:
    """Return the learned feature maps beside a profile, each proved by its hash."""
    file = beside(path)
    if not file.exists():
        return {}
    tensors = read_file(file, check=True).tensors
    maps = {digest: map_in(tensors, digest) for digest in {name.partition(".")[0] for name in tensors}}
    for digest, one in maps.items():
        if one.digest != digest:
            raise StoreError(f"{file}: a feature map is not the one that {path.name} was saved with")
    return maps
