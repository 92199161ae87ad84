"""What one head would do with one token, printed: which tokens it looks for, and which it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attlas.cli.rankings import plain_table

if TYPE_CHECKING:
    from attlas.projections.vocabulary_circuits import Standing, VocabularyCircuit

LISTS = (
    ("looks_for", "looks for"),
    ("looks_away", "looks away from"),
    ("writes", "writes"),
    ("suppresses", "suppresses"),
)


def circuit_as_json(circuit: VocabularyCircuit) -> dict[str, Any]:
    """Return a circuit as plain types."""
    return {
        "model": circuit.provenance.model,
        "layer": circuit.layer,
        "head": circuit.head,
        "id": circuit.id,
        "token": circuit.token,
        "offset": circuit.offset,
        "with_mlp": circuit.with_mlp,
        "vocabulary": circuit.vocabulary,
        "chance_z": circuit.chance,
        **{f"itself_{name}": vars(getattr(circuit, f"itself_{name}")) for name in ("sought", "written")},
        "tokens": circuit.rows(),
    }


def print_circuit(out: Any, circuit: VocabularyCircuit) -> None:
    """Print the four lists of a circuit beside one another."""
    from rich.text import Text

    from attlas.view.glyphs import visible

    model = circuit.provenance.model
    how = ", as the first MLP leaves them" if circuit.with_mlp else ""
    where = f", {circuit.offset} tokens before" if circuit.offset else ""
    out.print(f"{model}: layer {circuit.layer}, head {circuit.head}, token {visible(circuit.token)}{where}{how}")
    out.print()
    table = plain_table()
    for _, title in LISTS:
        table.add_column(title, no_wrap=True)
        table.add_column("z", justify="right", style="dim")
    columns = [getattr(circuit, name) for name, _ in LISTS]
    for i in range(max(len(column.tokens) for column in columns)):
        cells: list[Any] = []
        for column in columns:
            known = i < len(column.tokens)
            cells += [Text(visible(column.tokens[i])[:28]), f"{column.z[i]:.1f}"] if known else ["", ""]
        table.add_row(*cells)
    out.print(table)
    out.print()
    for what, standing in (("looked for", circuit.itself_sought), ("written", circuit.itself_written)):
        out.print(f"The token itself is {what} {_ordinal(standing, circuit.vocabulary)}", soft_wrap=True)
    out.print(
        f"z: standard deviations above the mean over the vocabulary; the best of {circuit.vocabulary:,} random scores "
        f"would reach {circuit.chance:.1f}",
        style="dim",
        soft_wrap=True,
    )


def _ordinal(standing: Standing, vocabulary: int) -> str:
    return f"more than {vocabulary - standing.rank - 1:,} of {vocabulary - 1:,} others (z {standing.z:.1f})"
