"""Measure everything and print Markdown tables; with ``--write``, put them into the documentation as well."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import explaining, matrix, model, projections, roles
from benchmarks.measuring import HEADER, Row, machine, put

PAGES = (Path("README.md"), Path("docs/reference/benchmarks.md"))
TABLES = {"attention": ("matrix", "model"), "projections": ("projections", "heads"), "explanations": ("explain",)}
"""Which parts each table holds; a page shows a table between marks that bear its name."""
PARTS = [part for parts in TABLES.values() for part in parts]


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is run in turn (default 5)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny sizes, to see that everything runs; the figures mean nothing"
    )
    parser.add_argument("--write", action="store_true", help=f"put whole tables into {' and '.join(map(str, PAGES))}")
    arguments = parser.parse_args()
    if arguments.tiny and arguments.write:
        parser.error("--write: wanted the real sizes, got --tiny")
    tables = {
        name: [part for part in parts if part in arguments.only]
        for name, parts in TABLES.items()
        if set(parts) & set(arguments.only)
    }
    if arguments.write and any(len(parts) < len(TABLES[name]) for name, parts in tables.items()):
        wanted = " or ".join(" ".join(parts) for parts in TABLES.values())
        parser.error(f"--write: wanted --only with all parts of a table ({wanted}), got {' '.join(arguments.only)}")
    for name, parts in tables.items():
        rows: list[Row] = []
        for part in parts:
            for row in measured(part, arguments.rounds, tiny=arguments.tiny):
                print(f"bench: {row.what}: {row.reached}", file=sys.stderr, flush=True)
                rows.append(row)
        table = "\n".join([HEADER, *(row.markdown() for row in rows)])
        text = f"{table}\n\nMeasured with `./scripts/bench --only {' '.join(parts)}` on {machine()}."
        print(text, end="\n\n")
        if arguments.write:
            for page in PAGES:
                put(page, f"bench:{name}", text)


def measured(part: str, rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Measure a part, one row after the other."""
    few = {"length": 40} if tiny else {}
    if part == "matrix":
        yield from matrix.questions(rounds, **({"length": 300} if tiny else {}))
        yield matrix.tile(rounds, **({"length": 600} if tiny else {}))
        yield matrix.long_head(**({"length": 1000} if tiny else {}))
    if part == "model":
        yield from model.reading(max(2, rounds // 2), **few)
        yield model.memory(**few)
        yield model.page(**few)
    if part == "projections":
        yield from projections.rows(rounds, tiny=tiny)
    if part == "heads":
        yield from roles.rows(max(2, rounds // 2), tiny=tiny)
    if part == "explain":
        yield from explaining.rows(max(2, rounds // 2), tiny=tiny)


if __name__ == "__main__":
    main()
