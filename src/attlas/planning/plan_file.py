"""A plan's file: readable JSON that lists each pattern once, and a table of numbers, a row a layer and a column a head.

What is read is not trusted: sizes are bounded, every type is checked, and nothing in it names code. Learned feature
maps lie in a safetensors file beside it, and each is compared with the hash by which the plan knows it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from attlas import __version__
from attlas._writing import write_together
from attlas.capture.tensor_file import read_file
from attlas.errors import AttlasError, StoreError
from attlas.patterns import Full, Pattern
from attlas.patterns.features import FeatureMap
from attlas.patterns.linear import Linear
from attlas.patterns.registry import from_settings
from attlas.planning.dispatch import Layer
from attlas.planning.maps_file import beside, map_in, write_maps
from attlas.planning.plan import Expected, Plan
from attlas.planning.subject import Subject
from attlas.results import Provenance

FORMAT = "attlas plan"
VERSION = 1

_LARGEST_FILE = 2**25
_MOST_LAYERS = 10_000
_MOST_HEADS = 4_096
_MOST_PATTERNS = 100_000
_LONGEST_NAME = 1_000

T = TypeVar("T", dict, list, str, int)


# ---- writing


def write_plan(plan: Plan, path: Path) -> Path:
    """Write a plan, and the learned feature maps that it has beside it; return the path of the plan."""
    maps = write_maps(plan.kinds, path, "plan")
    write_together({path: _text(plan, maps).encode()}, make_folders=False)
    return path


def _text(plan: Plan, maps: Sequence[str]) -> str:
    patterns: list[Pattern] = [Full(), *plan.kinds]
    numbers = {pattern: number for number, pattern in enumerate(patterns)}
    rows: dict[str, list[int]] = {str(layer): [0] * size for layer, size in enumerate(plan.sizes)}
    for (layer, head), pattern in plan.patterns.items():
        row = rows.setdefault(str(layer), [])
        row += [0] * (head + 1 - len(row))
        row[head] = numbers[pattern]
    subject = plan.subject
    entries = {
        "format": json.dumps(FORMAT),
        "version": json.dumps(VERSION),
        "attlas": json.dumps(__version__),
        "model": _lines(
            {
                "name": subject.name,
                "fingerprint": subject.fingerprint,
                "family": subject.family,
                "parameters": subject.parameters,
                "layers": list(plan.layers),
            }
        ),
        "patterns": _items([{"kind": pattern.kind, "settings": pattern.settings()} for pattern in patterns]),
        "heads": _lines(rows),
        "expected": _lines({name: {"value": e.value, "meaning": e.meaning} for name, e in plan.expected.items()}),
        "maps": json.dumps(maps),
        "provenance": _lines(plan.provenance.as_dict()),
    }
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {value}" for name, value in entries.items()) + "\n}\n"


def _lines(entries: Mapping[str, Any]) -> str:
    """Write an object with one entry a line."""
    lines = [f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in entries.items()]
    return "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"


def _items(items: Sequence[Any]) -> str:
    """Write a list with one item a line."""
    return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in items) + "\n  ]"


# ---- reading


def read_plan(path: Path) -> Plan:
    """Read a plan's file."""
    return _Reader(path).plan()


class _Reader:
    """Reads one file, and says where it is not a plan."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = self._opened()

    def plan(self) -> Plan:
        found, version = self._root.get("format"), self._root.get("version")
        if found != FORMAT:
            raise StoreError(f"{self._path}: wanted a plan that attlas wrote, got JSON of another kind")
        if version != VERSION:
            raise StoreError(
                f"{self._path}: wanted a plan of format version {VERSION}, got version {_short(version)}, written by "
                f"attlas {_short(self._root.get('attlas'))}; make the plan again, or use that version of attlas"
            )
        model = self._object(self._root, "model")
        layers = tuple(
            self._typed(name, str, "model.layers") for name in self._list(model, "layers", most=_MOST_LAYERS)
        )
        subject = Subject(
            self._string(model, "name"),
            self._string(model, "fingerprint"),
            self._string(model, "family"),
            self._number(model, "parameters"),
        )
        table = self._heads(layers, self._patterns())
        sizes = self._sizes(layers)
        return Plan(subject, table, layers, sizes, self._expected(), self._provenance())

    def _opened(self) -> dict[str, Any]:
        try:
            size = self._path.stat().st_size
            if size > _LARGEST_FILE:
                raise StoreError(f"{self._path}: wanted a plan of at most {_LARGEST_FILE:,} bytes, got {size:,}")
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise StoreError(f"{self._path}: there is no such file; attlas plan writes one") from error
        except UnicodeDecodeError as error:
            raise StoreError(f"{self._path}: wanted a plan in JSON, got bytes that are no text") from error
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self._path}: wanted a plan's file, which cannot be read: {error.strerror}") from error
        try:
            found = json.loads(text)
        # JSON nested thousands deep exhausts the parser's stack.
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{self._path}: wanted a plan in JSON, got a file that is not JSON ({error})") from error
        return self._typed(found, dict, "the file")

    # ---- its parts

    def _patterns(self) -> list[Pattern]:
        maps = self._maps()
        found: list[Pattern] = []
        for number, entry in enumerate(self._list(self._root, "patterns", most=_MOST_PATTERNS)):
            where = f"patterns[{number}]"
            entry = self._typed(entry, dict, where)
            kind, settings = self._string(entry, "kind"), self._object(entry, "settings")
            try:
                pattern = Linear.from_settings(settings, maps) if kind == Linear.kind else from_settings(kind, settings)
            except (AttlasError, TypeError, ValueError, KeyError) as error:
                raise StoreError(f"{self._path}: {where} is not a pattern ({error})") from error
            found.append(pattern)
        return found

    def _maps(self) -> dict[str, FeatureMap]:
        names = [self._typed(name, str, "maps") for name in self._list(self._root, "maps", most=_MOST_PATTERNS)]
        if not names:
            return {}
        tensors = read_file(beside(self._path), check=True).tensors
        return {name: self._map(name, tensors) for name in names}

    def _map(self, name: str, tensors: Mapping[str, Tensor]) -> FeatureMap:
        file = beside(self._path)
        try:
            found = map_in(tensors, name)
        except AttlasError as error:
            raise StoreError(f"{file}: wanted the feature map {_short(name)}, got none ({error})") from error
        if found.digest != name:
            raise StoreError(
                f"{file}: the feature map {_short(name)} is not the one that {self._path.name} was saved with"
            )
        return found

    def _heads(self, layers: Sequence[str], patterns: Sequence[Pattern]) -> dict[tuple[Layer, int], Pattern]:
        table: dict[tuple[Layer, int], Pattern] = {}
        rows = self._object(self._root, "heads")
        if len(rows) > _MOST_LAYERS:
            raise StoreError(f"{self._path}: heads: wanted at most {_MOST_LAYERS:,} layers, got {len(rows):,}")
        for name in rows:
            where = f"heads of layer {_short(name)}"
            layer: Layer = int(name) if name.isascii() and name.isdigit() and len(name) < 6 else name
            if layers and (isinstance(layer, str) or layer >= len(layers)):
                raise StoreError(f"{self._path}: {where}: wanted layers from 0 to {len(layers) - 1}")
            for head, number in enumerate(self._list(rows, name, most=_MOST_HEADS)):
                index = self._typed(number, int, where)
                if not 0 <= index < len(patterns):
                    raise StoreError(
                        f"{self._path}: {where}: wanted numbers of patterns from 0 to {len(patterns) - 1}, got {index}"
                    )
                table[layer, head] = patterns[index]
        return table

    def _sizes(self, layers: Sequence[str]) -> tuple[int, ...]:
        """Return how many heads each layer has, where all layers are listed."""
        rows = self._object(self._root, "heads")
        known = len(rows) == len(layers)
        return tuple(len(rows[str(number)]) for number in range(len(layers))) if known else ()

    def _expected(self) -> dict[str, Expected]:
        found = {}
        for name, entry in self._object(self._root, "expected").items():
            entry = self._typed(entry, dict, f"expected.{_short(name)}")
            value = entry.get("value")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise StoreError(f"{self._path}: expected.{_short(name)}: wanted a number, got {_short(value)}")
            found[name] = Expected(float(value), self._string(entry, "meaning"))
        return found

    def _provenance(self) -> Provenance:
        entry = self._object(self._root, "provenance")
        return Provenance(
            self._string(entry, "attlas"),
            self._string(entry, "model"),
            self._string(entry, "fingerprint"),
            self._object(entry, "settings"),
        )

    # ---- types

    def _object(self, parent: Mapping[str, Any], name: str) -> dict[str, Any]:
        return self._typed(parent.get(name), dict, name)

    def _list(self, parent: Mapping[str, Any], name: str, *, most: int) -> list[Any]:
        found = self._typed(parent.get(name), list, _short(name))
        if len(found) > most:
            raise StoreError(f"{self._path}: {_short(name)}: wanted at most {most:,} entries, got {len(found):,}")
        return found

    def _string(self, parent: Mapping[str, Any], name: str) -> str:
        found = self._typed(parent.get(name), str, name)
        if len(found) > _LONGEST_NAME:
            raise StoreError(f"{self._path}: {name}: wanted at most {_LONGEST_NAME:,} characters, got {len(found):,}")
        return found

    def _number(self, parent: Mapping[str, Any], name: str) -> int:
        return self._typed(parent.get(name), int, name)

    def _typed(self, value: object, kind: type[T], where: str) -> T:
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = {dict: "an object", list: "a list", str: "a string", int: "a whole number"}[kind]
            raise StoreError(f"{self._path}: {where}: wanted {wanted}, got {_short(value)}")
        return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
