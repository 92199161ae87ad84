"""The result of comparing two models: a row a head, the records behind it, and difference maps on request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from attlas._invisible import printable
from attlas._tables import Table
from attlas.compare.columns import GAINED, HEAD_COLUMNS, PLACES, check_column, described
from attlas.compare.records import CircuitChange, LayerChange, LayerMoved, ModuleTable, Moved, Restored
from attlas.errors import ArgumentError, complaint
from attlas.results import Provenance

Maps = Callable[[Sequence[tuple[int, int]], tuple[int, int]], dict[tuple[int, int], Tensor]]


@dataclass(frozen=True, eq=False)
class Comparison(Table):
    """What a fine-tune or an adapter changed, head by head.

    Parameters
    ----------
    heads : tuple of (layer, head)
        In the order of the rows.
    layers : tuple of LayerChange
        What changed in the weights of each attention layer.
    modules : ModuleTable
        What changed in each weight matrix, those of MLPs included.
    moved : Moved, optional
        How attention moved; None without a text.
    restored : Restored, optional
        Which heads explain the changed output; None without a text, for a model that predicts no next token, or where
        it was not asked for.
    kind : {"adapter", "model"}
        What the base was compared with.
    reasons : mapping
        "moved" or "restored" -> why it is None.
    notes : tuple of str
        What changed but is in none of the numbers, such as norms and embeddings of a full fine-tune.
    provenance : Provenance
        How it was made. Its settings name what the base was compared with, as "tuned".
    """

    heads: tuple[tuple[int, int], ...]
    layers: tuple[LayerChange, ...]
    modules: ModuleTable
    moved: Moved | None
    restored: Restored | None
    kind: str
    reasons: Mapping[str, str]
    notes: tuple[str, ...]
    provenance: Provenance
    _maps: Maps | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.heads)

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The text's tokens, if there was one."""
        return None if self.moved is None else self.moved.tokens

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types, a row a head; None where a number does not exist or was not asked for."""
        empty = dict.fromkeys(column.name for column in HEAD_COLUMNS)
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for layer in self.layers:
            for head in range(layer.heads):
                where = {"layer": layer.layer, "head": head, "kv_head": head // layer.group, "module": layer.name}
                found[layer.layer, head] = {**where, **empty, **_weights_row(layer, head)}
        if self.moved is not None:
            for moved in self.moved.layers:
                for head in range(len(moved.moved)):
                    found[moved.layer, head] |= _moved_row(moved, head, self.moved.tokens)
        if self.restored is not None:
            for i, at in enumerate(self.restored.heads):
                found[at]["restore_estimate"] = _number(self.restored.estimate[i])
                found[at]["restored"] = _number(self.restored.exact[i])
        return [found[at] for at in self.heads]

    def row(self, layer: int, head: int) -> dict[str, Any]:
        """Return one head's row."""
        return self.rows()[self._index(layer, head)]

    def ranked(self, column: str, count: int | None = None) -> list[tuple[int, int]]:
        """Return heads by the size of a column, largest first; those without a number are left out.

        Parameters
        ----------
        column : str
            For example "moved", "restored" or "qk_relative".
        count : int, optional
            How many at most.
        """
        check_column("column", column)
        rows = [row for row in self.rows() if isinstance(row[column], int | float)]
        rows.sort(key=lambda row: -row[column])
        return [(row["layer"], row["head"]) for row in rows[:count]]

    def differences(
        self, heads: Sequence[tuple[int, int]], size: tuple[int, int] = (256, 256)
    ) -> dict[tuple[int, int], Tensor]:
        """Return maps of what moved in some heads: ``A' − A``, each cell the mean of its entries.

        Parameters
        ----------
        heads : sequence of (layer, head)
            Which heads; ask for all that are wanted at once.
        size : (rows, cols)
            Of each map, as for `AttentionMatrix.pool`; never more than the text has tokens.

        Returns
        -------
        dict
            (layer, head) -> Tensor (rows, cols), float32: positive where the tuned model attends more.

        Raises
        ------
        ArgumentError
            There was no text, or a head does not exist.

        Notes
        -----
        Both models read the text again, up to the last of the layers that are asked for: at most two forward passes for
        any number of heads, and a streaming pass over both matrices of each. Nothing of them is kept between calls, so
        the models must still be as they were.
        """
        if self._maps is None or self.moved is None:
            raise ArgumentError(
                complaint(
                    "differences",
                    wanted="a comparison on a text",
                    got="one of weights only",
                    way_out="attlas.compare(base, tuned, text)",
                )
            )
        for layer, head in heads:
            self._index(layer, head)
        n = self.moved.n
        return self._maps(list(heads), (min(size[0], n), min(size[1], n)))

    def difference(self, layer: int, head: int, size: tuple[int, int] = (256, 256)) -> Tensor:
        """Return one head's map of what moved, (rows, cols); see `differences`."""
        return self.differences([(layer, head)], size)[layer, head]

    def about(self) -> dict[str, Any]:
        about: dict[str, Any] = {
            "columns": described(HEAD_COLUMNS),
            "kind": self.kind,
            "notes": list(self.notes),
            "reasons": dict(self.reasons),
        }
        if self.moved is not None:
            about["moved"] = {"tokens": self.moved.n, "rows": len(self.moved.rows)}
        if self.restored is not None:
            about["restored"] = {
                "window": list(self.restored.window),
                "divergence": self.restored.divergence,
                "correlation": self.restored.correlation,
            }
        return about

    def _index(self, layer: int, head: int) -> int:
        if (layer, head) not in self.heads:
            wanted = f"one of the {len(self.heads)} heads that were compared, from {self.heads[0]} to {self.heads[-1]}"
            raise ArgumentError(complaint("head", wanted=wanted, got=(layer, head)))
        return self.heads.index((layer, head))

    def __repr__(self) -> str:
        tuned = self.provenance.settings.get("tuned", "")
        on = "" if self.moved is None else f", {self.moved.n:,} tokens"
        return f"Comparison({self.provenance.model} with {tuned}, {len(self)} heads, {len(self.modules)} modules{on})"


def _weights_row(layer: LayerChange, head: int) -> dict[str, Any]:
    return {
        **_circuit_row("qk", layer.qk, head),
        **_circuit_row("ov", layer.ov, head),
        **{f"{role}_relative": _number(values[head]) for role, values in layer.relative.items()},
        "bias_change": _number(layer.biases[head]),
        "merge_loss": _number(layer.merge_loss[head]),
    }


def _circuit_row(name: str, circuit: CircuitChange, head: int) -> dict[str, Any]:
    return {
        f"{name}_base": _number(circuit.base[head]),
        f"{name}_change": _number(circuit.change[head]),
        f"{name}_relative": _number(circuit.relative[head]),
        f"{name}_rank": int(circuit.rank[head]),
        f"{name}_effective_rank": _number(circuit.effective_rank[head]),
        f"{name}_stable_rank": _number(circuit.stable_rank[head]),
        f"{name}_largest": _number(circuit.singular[head, 0]),
        f"{name}_amplification": _number(circuit.amplification[head]),
        f"{name}_left": _number(circuit.left[head]),
        f"{name}_left_chance": _number(circuit.chance[0][head]),
        f"{name}_right": _number(circuit.right[head]),
        f"{name}_right_chance": _number(circuit.chance[1][head]),
    }


def _moved_row(layer: LayerMoved, head: int, tokens: tuple[str, ...]) -> dict[str, Any]:
    moved = layer.moved[head].double()
    received = layer.received[head]
    gained, lost = int(received.argmax()), int(received.argmin())
    return {
        "moved": _number(moved.mean()),
        "moved_median": _number(moved.median()),
        "moved_90": _number(moved.quantile(0.9)),
        "moved_largest": _number(moved.max()),
        **{
            name: _number(getattr(layer, name)[head].double().mean())
            for name in ("own", "upstream", "own_after", "upstream_after")
        },
        "own_share": _number(layer.own_share[head]),
        **{GAINED[place]: _number(layer.gained[place][head].double().mean()) for place in PLACES},
        "entropy_change": _number(layer.entropy[head].double().mean()),
        "distance_change": _number(layer.distance[head].double().mean()),
        "gained_key": gained,
        "gained_token": printable(tokens[gained]),
        "gained_by": _number(received[gained]),
        "lost_key": lost,
        "lost_token": printable(tokens[lost]),
        "lost_by": _number(received[lost]),
    }


def _number(value: Tensor) -> float | None:
    """Return a number, or None where there is none: a ratio of nothing to nothing."""
    number = float(value)
    return None if number != number else number
