"""Tables of results: rows of plain types for people and programs, and one Parquet file that says what it holds."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from attlas._writing import write_together
from attlas.results import Provenance


class Table(ABC):
    """A result that is a table."""

    provenance: Provenance

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types."""

    def about(self) -> Mapping[str, Any]:
        """Return what a reader of the file should know beside its origin, by name, as types that JSON can hold."""
        return {}

    def to_parquet(self, path: str | PathLike[str]) -> Path:
        """Write the table as a Parquet file, atomically; its schema's metadata says how it was made.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        target = Path(path)
        write_together({target: self.parquet()})
        return target

    def parquet(self) -> bytes:
        """Return the content of the Parquet file."""
        return parquet_of(self.rows(), self.provenance, self.about())


def parquet_of(rows: list[dict[str, Any]], provenance: Provenance, about: Mapping[str, Any]) -> bytes:
    """Return rows of plain types as the content of a Parquet file, with their origin and meaning in its metadata."""
    import pyarrow
    from pyarrow import parquet

    metadata = {"attlas": json.dumps(provenance.as_dict(), ensure_ascii=False)}
    metadata |= {name: json.dumps(finite(value), ensure_ascii=False) for name, value in about.items()}
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata), buffer)
    return buffer.getvalue()


def finite(content: Any) -> Any:
    """Return plain types with null for each number that is not finite, because JSON has no word for it."""
    if isinstance(content, float):
        return content if abs(content) < float("inf") else None
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return content
