"""The columns of a comparison's two tables, and what each number means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from attlas.errors import ArgumentError, complaint
from attlas.projections.table import Column

NEAR = 256
"""Keys nearer than this, in tokens, count as near."""

PLACES = ("first", "itself", "previous", "near", "far", "same token", "after same token")
"""Sets of keys. The first five cover all keys, each once: the text's first token, the query's own token, the one just
before, keys less than 256 tokens away, and the rest. The last two lie across them: earlier keys with the query's own
token, and keys just after one (where an induction head looks)."""

_LORA = "Hu et al. 2021 (LoRA), section 7"
_OWN = "attlas"


def _circuit(name: str, label: str, product: str) -> tuple[Column, ...]:
    return (
        Column(f"{name}_base", f"{label} norm, base", "", f"Frobenius norm of {product} in the base.", "", ""),
        Column(f"{name}_change", f"Δ{label} norm", "", f"Frobenius norm of the change of {product}.", "", ""),
        Column(f"{name}_relative", f"Δ{label} / {label}", "", "The one over the other.", "", "0 without a change"),
        Column(f"{name}_rank", f"Δ{label} rank", "", "Singular values of the change above rounding.", "", ""),
        Column(
            f"{name}_effective_rank",
            f"Δ{label} effective rank",
            "",
            "Exponential of the entropy of the change's singular values.",
            "Roy and Vetterli 2007",
            "",
        ),
        Column(
            f"{name}_stable_rank",
            f"Δ{label} stable rank",
            "",
            "Squared norm of the change over its largest squared singular value.",
            "Rudelson and Vershynin 2007",
            "",
        ),
        Column(f"{name}_largest", f"Δ{label} largest", "", "Largest singular value of the change.", "", ""),
        Column(
            f"{name}_amplification",
            f"{label} amplification",
            "times",
            f"Size of the change over that of {product} in the change's own leading directions.",
            _LORA,
            "",
        ),
        Column(
            f"{name}_left",
            f"{label} overlap, left",
            "share",
            "How much of the change's leading column space lies within the base's.",
            _LORA,
            f"the column {name}_left_chance",
        ),
        Column(f"{name}_left_chance", "", "share", "What random spaces would give.", "", ""),
        Column(
            f"{name}_right",
            f"{label} overlap, right",
            "share",
            "The same of the row spaces.",
            _LORA,
            f"the column {name}_right_chance",
        ),
        Column(f"{name}_right_chance", "", "share", "What random spaces would give.", "", ""),
    )


def _gained(place: str) -> str:
    return f"to_{place.replace(' ', '_')}"


GAINED = {place: _gained(place) for place in PLACES}
"""Set of keys -> the column that says what it gained."""

WEIGHT_COLUMNS = (
    *_circuit("qk", "QK", "W_Q W_Kᵀ"),
    *_circuit("ov", "OV", "W_V W_O"),
    *(
        Column(f"{role}_relative", f"Δ{symbol}", "", f"Norm of the change of the head's {symbol} over its own.", "", "")
        for role, symbol in (("query", "W_Q"), ("key", "W_K"), ("value", "W_V"), ("output", "W_O"))
    ),
    Column("bias_change", "Δ biases", "", "Norm of the change of the head's biases of query, key and value.", "", ""),
    Column(
        "merge_loss",
        "lost by merging",
        "share",
        "What rounding leaves wrong of the head's changes once they are added to the weights: error over change.",
        "",
        "0 without rounding",
    ),
)

TEXT_COLUMNS = (
    Column("moved", "attention moved", "share", "Total variation of a row between base and tuned, mean.", "", "0"),
    Column("moved_median", "", "share", "Its median over rows.", "", ""),
    Column("moved_90", "", "share", "Its 90th percentile over rows.", "", ""),
    Column("moved_largest", "", "share", "Its largest value over rows.", "", ""),
    Column(
        "own", "own weights", "share", "Total variation that the layer's own new weights make on the old input.", "", ""
    ),
    Column(
        "upstream", "changed input", "share", "Total variation that the new input makes under the old weights.", "", ""
    ),
    Column("own_after", "", "share", "Own new weights on the new input.", "", ""),
    Column("upstream_after", "", "share", "The new input under the new weights.", "", ""),
    Column(
        "own_share",
        "share of own weights",
        "share",
        "Own weights' part of what moved, the mean of both orders; the two parts do not add up to what moved.",
        _OWN,
        "",
    ),
    *(
        Column(name, f"to {place}", "share", f"Share of a row that went to: {place}.", "", "0")
        for place, name in GAINED.items()
    ),
    Column("entropy_change", "Δ entropy", "nats", "Mean change of a row's entropy.", "", "0"),
    Column("distance_change", "Δ distance", "tokens", "Mean change of how far a row looks.", "", "0"),
    Column("gained_key", "gained most", "", "Position of the key that gained most, as a mean over rows.", "", ""),
    Column("gained_token", "", "", "Its token.", "", ""),
    Column("gained_by", "", "share", "By how much.", "", ""),
    Column("lost_key", "lost most", "", "Position of the key that lost most.", "", ""),
    Column("lost_token", "", "", "Its token.", "", ""),
    Column("lost_by", "", "share", "By how much (negative).", "", ""),
    Column(
        "restore_estimate",
        "explains, estimated",
        "nats",
        "First-order estimate of how much nearer to the base's output putting this head back brings the tuned model.",
        _OWN,
        "0",
    ),
    Column("restored", "explains", "nats", "The same measured, where it was; KL(base ‖ tuned), mean.", _OWN, "0"),
)
HEAD_COLUMNS = (*WEIGHT_COLUMNS, *TEXT_COLUMNS)
_WORDS = ("gained_token", "lost_token")

MODULE_COLUMNS = (
    Column("layer", "layer", "", "Attention layer that it belongs to, if any.", "", ""),
    Column("role", "role", "", "Which of query, key, value and output it makes, joined by +, if any.", "", ""),
    Column("outputs", "outputs", "", "Rows of its weight as a (out, in) matrix.", "", ""),
    Column("inputs", "inputs", "", "Columns.", "", ""),
    Column("trained_rank", "trained rank", "", "Rank that the adapter was trained with, if it is one.", "", ""),
    Column("scaling", "scaling", "", "What the adapter's product is multiplied with, if it is one.", "", ""),
    Column("base", "norm, base", "", "Frobenius norm of the base's weight.", "", ""),
    Column("change", "Δ norm", "", "Frobenius norm of the change.", "", ""),
    Column("relative", "Δ / norm", "", "The one over the other.", "", "0 without a change"),
    Column("rank", "Δ rank", "", "Singular values of the change above rounding.", "", ""),
    Column("effective_rank", "Δ effective rank", "", "Of the change.", "Roy and Vetterli 2007", ""),
    Column("stable_rank", "Δ stable rank", "", "Of the change.", "Rudelson and Vershynin 2007", ""),
    Column("largest", "Δ largest", "", "Largest singular value of the change.", "", ""),
    Column("directions", "directions", "", "How many leading directions the next columns are about.", "", ""),
    Column(
        "amplification",
        "amplification",
        "times",
        "Size of the change over that of the base's weight, both in the change's leading directions.",
        _LORA,
        "",
    ),
    Column(
        "left",
        "overlap, left",
        "share",
        "φ of the leading left singular vectors of change and base.",
        _LORA,
        "left_chance",
    ),
    Column("left_chance", "", "share", "What random spaces would give.", "", ""),
    Column("right", "overlap, right", "share", "φ of the leading right singular vectors.", _LORA, "right_chance"),
    Column("right_chance", "", "share", "What random spaces would give.", "", ""),
    Column(
        "intruders",
        "intruders",
        "",
        "Of the leading left singular vectors of the tuned weight, those that no singular vector of the base is near.",
        "Shuttleworth et al. 2024",
        "0",
    ),
    Column(
        "intruder_nearest",
        "",
        "",
        "Of those leading vectors, the least of the largest cosines with the base's.",
        "",
        "1",
    ),
    Column("merge_loss", "lost by merging", "share", "‖cast(W + ΔW) − W − ΔW‖ / ‖ΔW‖.", "", "0 without rounding"),
    Column(
        "merge_loss_rounded",
        "lost by merging, base rounded",
        "share",
        "The same where the base's own weight was rounded before: what a checkpoint kept in that dtype loses.",
        "",
        "",
    ),
    Column("bias_change", "Δ bias", "", "Norm of the change of its bias.", "", ""),
)


def described(columns: Sequence[Column]) -> dict[str, Any]:
    """Return columns as plain types, by name."""
    return {column.name: asdict(column) for column in columns}


def check_column(argument: str, column: object) -> None:
    """Refuse what is no column of numbers of heads."""
    names = [known.name for known in HEAD_COLUMNS if known.name not in _WORDS]
    if column not in names:
        raise ArgumentError(complaint(argument, wanted=f"one of {', '.join(names)}", got=repr(column)))
