"""A table's file holds its rows, and says where they come from and what they mean."""

import json
import math
from pathlib import Path
from typing import Any

from pyarrow import parquet

from attlas._tables import Table, finite
from attlas.results import Provenance


class Two(Table):
    provenance = Provenance("1.0", "model", "f00d", {"seed": 3})

    def rows(self) -> list[dict[str, Any]]:
        return [{"head": 0, "score": 0.5}, {"head": 1, "score": None}]

    def about(self) -> dict[str, Any]:
        return {"columns": {"score": "a share"}, "worst": math.nan}


def test_rows_and_their_meaning_come_back(tmp_path: Path) -> None:
    read = parquet.read_table(Two().to_parquet(tmp_path / "two.parquet"))
    assert read.to_pylist() == Two().rows()
    known = {name.decode(): json.loads(value) for name, value in read.schema.metadata.items()}
    assert known["attlas"] == Two.provenance.as_dict()
    assert known["columns"] == {"score": "a share"}
    assert known["worst"] is None


def test_a_number_that_is_not_finite_becomes_null() -> None:
    assert finite({"a": [1.5, math.inf, (math.nan, 2)], "b": "nan"}) == {"a": [1.5, None, [None, 2]], "b": "nan"}
