"""An advice's file: readable JSON with a line for each module and each head.

What is read is not trusted: its size is bounded, every type is checked, and nothing in it names code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from attlas import __version__
from attlas._tables import finite
from attlas._writing import write_together
from attlas.errors import StoreError
from attlas.results import Provenance
from attlas.training.advice import EVIDENCE, Advice, Head, Module
from attlas.training.settings import Targets

FORMAT = "attlas lora advice"
VERSION = 1
_LARGEST_FILE = 2**26


def write_advice(advice: Advice, path: Path) -> Path:
    """Write an advice; return the path."""
    modules = [
        {
            "name": one.name,
            "layer": one.layer,
            "roles": list(one.roles),
            "cost": one.cost,
            "fall": one.fall,
            "error": one.error,
            "rank": one.rank,
        }
        for one in advice.modules
    ]
    heads = [
        {name: getattr(one, name) for name in ("layer", "head", "query", "key", "value", "output")}
        for one in advice.heads
    ]
    entries = {
        "format": json.dumps(FORMAT),
        "version": json.dumps(VERSION),
        "attlas": json.dumps(__version__),
        "budget": json.dumps(advice.budget),
        "parameters": json.dumps(advice.parameters),
        "even": json.dumps(advice.even),
        "targets": json.dumps(advice.targets.as_dict(), ensure_ascii=False),
        "evidence": json.dumps(EVIDENCE),
        "notes": json.dumps(list(advice.notes), ensure_ascii=False),
        "losses": json.dumps(finite(advice.losses)),
        "modules": _lines(modules),
        "heads": _lines(heads),
        "provenance": json.dumps(finite(advice.provenance.as_dict()), ensure_ascii=False),
    }
    text = "{\n" + ",\n".join(f"  {json.dumps(name)}: {value}" for name, value in entries.items()) + "\n}\n"
    write_together({path: text.encode()})
    return path


def _lines(items: list[dict[str, Any]]) -> str:
    lines = [f"    {json.dumps(finite(item), ensure_ascii=False)}" for item in items]
    return "[\n" + ",\n".join(lines) + "\n  ]" if lines else "[]"


def open_advice(path: str | PathLike[str]) -> Advice:
    """Open an advice that `Advice.save` wrote.

    Raises
    ------
    StoreError
        The file cannot be read, or is no whole advice of this version.
    """
    target = Path(path)
    try:
        with target.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise StoreError(f"{target}: cannot be read ({error.strerror or error}); check the path") from error
    if len(content) > _LARGEST_FILE:
        raise StoreError(f"{target}: wanted an advice of at most {_LARGEST_FILE:,} bytes, got a larger file")
    try:
        root = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{target}: wanted an advice that attlas wrote, got what is no JSON") from error
    return _Reader(target).advice(root)


class _Reader:
    """Reads one file, and says where it is not an advice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def advice(self, root: Any) -> Advice:
        if not isinstance(root, dict) or root.get("format") != FORMAT:
            raise StoreError(f"{self._path}: wanted an advice that attlas wrote, got JSON of another kind")
        if root.get("version") != VERSION:
            way_out = "make the advice again, or use the version of attlas that wrote it"
            raise StoreError(f"{self._path}: wanted an advice of format version {VERSION}, got another; {way_out}")
        modules = tuple(self._module(one) for one in self._list(root, "modules"))
        if not modules:
            raise self._wrong("modules", "at least one")
        made = self._dict(root, "provenance")
        return Advice(
            modules=modules,
            heads=tuple(self._head(one) for one in self._list(root, "heads")),
            budget=self._whole(root, "budget"),
            even=max(1, self._whole(root, "even")),
            losses=tuple(self._number({"losses": one}, "losses") for one in self._list(root, "losses")),
            targets=self._targets(self._dict(root, "targets")),
            notes=tuple(self._text({"notes": one}, "notes") for one in self._list(root, "notes")),
            provenance=Provenance(
                self._text(made, "attlas"),
                self._text(made, "model"),
                self._text(made, "fingerprint"),
                self._dict(made, "settings"),
            ),
        )

    def _module(self, entry: Any) -> Module:
        return Module(
            self._text(entry, "name"),
            None if isinstance(entry, dict) and entry.get("layer") is None else self._whole(entry, "layer"),
            tuple(self._text({"roles": one}, "roles") for one in self._list(entry, "roles")),
            self._whole(entry, "cost"),
            self._number(entry, "fall"),
            self._number(entry, "error"),
            self._whole(entry, "rank"),
        )

    def _head(self, entry: Any) -> Head:
        parts = {name: self._number(entry, name) for name in ("query", "key", "value", "output")}
        return Head(self._whole(entry, "layer"), self._whole(entry, "head"), **parts)

    def _targets(self, entry: Mapping[str, Any]) -> Targets:
        try:
            return Targets(**{str(name): value for name, value in entry.items()})
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self._path}: targets: {error}") from error

    # ---- types

    def _value(self, entry: Any, name: str) -> Any:
        if not isinstance(entry, Mapping) or name not in entry:
            raise self._wrong(name, "an entry of this name")
        return entry[name]

    def _whole(self, entry: Any, name: str) -> int:
        value = self._value(entry, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._wrong(name, "a whole number from 0 on")
        return value

    def _number(self, entry: Any, name: str) -> float:
        value = self._value(entry, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._wrong(name, "a number")
        return float(value)

    def _text(self, entry: Any, name: str) -> str:
        value = self._value(entry, name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def _list(self, entry: Any, name: str) -> list[Any]:
        value = self._value(entry, name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def _dict(self, entry: Any, name: str) -> dict[str, Any]:
        value = self._value(entry, name)
        if not isinstance(value, dict):
            raise self._wrong(name, "an object")
        return value

    def _wrong(self, name: str, wanted: str) -> StoreError:
        return StoreError(f"{self._path}: {name}: wanted {wanted}, got something else; make the advice again")
