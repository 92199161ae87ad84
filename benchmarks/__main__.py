"""Measure everything and print Markdown tables; with ``--write``, put them into the documentation as well."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    comparing,
    explaining,
    linear,
    lora,
    lora_advice,
    lora_ranks,
    matrix,
    model,
    patterns,
    plans,
    projections,
    roles,
    stock,
    training,
    viewing,
)
from benchmarks.measuring import HEADER, Row, Sheet, machine, put

README, REFERENCE = Path("README.md"), Path("docs/reference/benchmarks.md")


@dataclass(frozen=True)
class Table:
    """Which parts a table holds, and which pages show it, between marks that bear its name."""

    parts: tuple[str, ...]
    pages: tuple[Path, ...] = (REFERENCE,)


TABLES = {
    "attention": Table(("matrix", "model"), (README, REFERENCE)),
    "projections": Table(("projections", "heads"), (README, REFERENCE)),
    "explanations": Table(("explain",), (README, REFERENCE)),
    "patterns": Table(("patterns",)),
    "linear": Table(("linear",)),
    "plans": Table(("plans",)),
    "stock": Table(("stock",)),
    "training": Table(("training",)),
    "lora": Table(("lora",)),
    "ranks": Table(("ranks",)),
    "advice": Table(("advice",)),
    "compare": Table(("compare",)),
    "view": Table(("view",)),
}
PARTS = [part for table in TABLES.values() for part in table.parts]


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each pair is run in turn (default 5)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="only these parts")
    parser.add_argument(
        "--needles", type=int, default=50, help="planted facts that a plan looks for, for each task and depth"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny sizes, to see that everything runs; the figures mean nothing"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"put whole tables into {README} and {REFERENCE}, and draw their pictures"
    )
    arguments = parser.parse_args()
    if arguments.tiny and arguments.write:
        parser.error("--write: wanted the real sizes, got --tiny")
    chosen = {
        name: [part for part in table.parts if part in arguments.only]
        for name, table in TABLES.items()
        if set(table.parts) & set(arguments.only)
    }
    if arguments.write and any(len(parts) < len(TABLES[name].parts) for name, parts in chosen.items()):
        wanted = " or ".join(" ".join(table.parts) for table in TABLES.values())
        parser.error(f"--write: wanted --only with all parts of a table ({wanted}), got {' '.join(arguments.only)}")
    for name, parts in chosen.items():
        rows: list[Row] = []
        foot = f"Measured with `./scripts/bench --only {' '.join(parts)}` on {machine()}."
        for part in parts:
            for found in measured(part, arguments.rounds, tiny=arguments.tiny, needles=arguments.needles):
                if isinstance(found, Sheet):
                    shown(found, foot, write=arguments.write)
                else:
                    print(f"bench: {found.what}: {found.reached}", file=sys.stderr, flush=True)
                    rows.append(found)
        text = "\n".join([HEADER, *(row.markdown() for row in rows)]) + f"\n\n{foot}"
        print(text, end="\n\n")
        if arguments.write:
            for page in TABLES[name].pages:
                put(page, f"bench:{name}", text)


def shown(sheet: Sheet, foot: str, *, write: bool) -> None:
    """Print a table that has a form of its own; and put it, and its pictures, into the documentation."""
    text = f"{sheet.text}\n\n{foot}"
    print(text, end="\n\n")
    if write:
        put(REFERENCE, sheet.name, text)
        for path, picture in sheet.pictures.items():
            path.write_bytes(picture)


def measured(part: str, rounds: int, *, tiny: bool, needles: int) -> Iterator[Row | Sheet]:
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
    if part == "patterns":
        yield from patterns.rows(rounds, tiny=tiny)
    if part == "linear":
        yield from linear.rows(max(2, rounds // 2), tiny=tiny)
    if part == "plans":
        yield from plans.rows(rounds, tiny=tiny, needles=needles)
    if part == "stock":
        yield from stock.rows(max(2, rounds // 2), tiny=tiny)
    if part == "training":
        yield from training.rows(rounds, tiny=tiny)
    if part == "lora":
        yield from lora.rows(rounds, tiny=tiny)
    if part == "ranks":
        yield from lora_ranks.rows(tiny=tiny)
    if part == "advice":
        yield from lora_advice.rows(tiny=tiny)
    if part == "compare":
        yield from comparing.rows(max(2, rounds // 2), tiny=tiny)
    if part == "view":
        yield from viewing.rows(tiny=tiny)


if __name__ == "__main__":
    main()
