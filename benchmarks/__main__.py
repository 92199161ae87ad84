"""Measure everything and print one Markdown table; with ``--write``, put it into the documentation as well."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import matrix, model, projections
from benchmarks.measuring import HEADER, Row, machine

PAGES = ("README.md", "docs/reference/benchmarks.md")
MARKS = re.compile(r"<!-- bench:begin -->.*?<!-- bench:end -->", re.DOTALL)


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is run in turn (default 5)")
    parser.add_argument(
        "--only",
        choices=["matrix", "model", "projections", "all"],
        default="all",
        help="only random matrices, only the real model, or only the projection matrices",
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny sizes, to see that everything runs; the figures mean nothing"
    )
    parser.add_argument("--write", action="store_true", help=f"put the table into {' and '.join(PAGES)}")
    arguments = parser.parse_args()
    if arguments.tiny and arguments.write:
        parser.error("--write: wanted the real sizes, got --tiny")
    rows: list[Row] = []
    for row in measured(arguments.only, arguments.rounds, tiny=arguments.tiny):
        print(f"bench: {row.what}: {row.reached}", file=sys.stderr, flush=True)
        rows.append(row)
    table = "\n".join([HEADER, *(row.markdown() for row in rows)])
    text = f"{table}\n\nMeasured with `./scripts/bench` on {machine()}."
    print(text)
    if arguments.write:
        write(text)


def measured(only: str, rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Measure what was asked for, one row after the other."""
    if only in ("matrix", "all"):
        yield from matrix.questions(rounds, **({"length": 300} if tiny else {}))
        yield matrix.tile(rounds, **({"length": 600} if tiny else {}))
        yield matrix.long_head(**({"length": 1000} if tiny else {}))
    if only in ("model", "all"):
        few = {"length": 40} if tiny else {}
        yield from model.reading(max(2, rounds // 2), **few)
        yield model.memory(**few)
        yield model.page(**few)
    if only in ("projections", "all"):
        yield from projections.rows(rounds, tiny=tiny)


def write(text: str) -> None:
    """Put the table between the marks of each page."""
    for name in PAGES:
        page = Path(name)
        old = page.read_text(encoding="utf-8")
        new = MARKS.sub(lambda _: f"<!-- bench:begin -->\n{text}\n<!-- bench:end -->", old)
        if new == old:
            print(f"{name}: nothing to change", file=sys.stderr)
        page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
