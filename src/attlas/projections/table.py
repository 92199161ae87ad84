"""The table of projections: a row a head, with what its weights say, each number beside what chance would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from attlas._tables import Table
from attlas.capture import Capture
from attlas.errors import UnsupportedModelError
from attlas.models.progress import Progress
from attlas.projections.composing import KINDS, Composition, composition
from attlas.projections.copy_scores import Copying, copying
from attlas.projections.kernel import OffsetKernel, offset_kernel
from attlas.projections.singular_spectra import CircuitSpectra, Spectra, spectra
from attlas.results import Provenance

if TYPE_CHECKING:
    from attlas.projections.views import LayerProjections
    from attlas.projections.whole import Projections


@dataclass(frozen=True)
class Column:
    """One number of a head.

    Parameters
    ----------
    name : str
        Its column's name.
    label : str
        What people call it, short.
    unit : str
        "share" (0 to 1), "tokens", "deviations" or "" (a plain number).
    meaning : str
        One sentence.
    source : str
        Where the formula comes from.
    chance : str
        What a head that has learnt nothing would give, or which column says so.
    """

    name: str
    label: str
    unit: str
    meaning: str
    source: str
    chance: str


_RANDOM_FACTORS = "the column of the same name with _chance: the mean of random heads, Gaussian factors of its shape"
_TURNED = "0, with the spread of heads whose output is turned at random (the table's `chance`)"
_COMPOSED = "1/√d_model, exactly, as root mean square over all rotations of one head against the other"
_ELHAGE = "Elhage et al. 2021"
_OWN = "attlas"


def _spectral(circuit: str, product: str) -> tuple[Column, ...]:
    name = circuit.upper()
    return (
        Column(f"{circuit}_norm", f"{name} norm", "", f"Frobenius norm of {product}.", "", ""),
        Column(
            f"{circuit}_effective_rank",
            f"{name} effective rank",
            "",
            f"Exponential of the entropy of the singular values of {product}.",
            "Roy and Vetterli 2007",
            _RANDOM_FACTORS,
        ),
        Column(
            f"{circuit}_stable_rank",
            f"{name} stable rank",
            "",
            f"Squared norm of {product} over its largest squared singular value.",
            "Rudelson and Vershynin 2007",
            _RANDOM_FACTORS,
        ),
        Column(
            f"{circuit}_rank_90",
            f"{name} rank at 90 %",
            "",
            f"How many singular values hold 90 % of the squared norm of {product}.",
            "",
            _RANDOM_FACTORS,
        ),
        Column(
            f"{circuit}_positivity",
            f"{name} eigenvalues",
            "",
            f"Sum of the real parts of the eigenvalues of {product} over the sum of their sizes: −1 to 1.",
            _ELHAGE,
            _RANDOM_FACTORS,
        ),
    )


def _composed(kind: str) -> tuple[Column, ...]:
    what = {"q": "queries", "k": "keys", "v": "values"}[kind]
    return (
        Column(
            f"{kind}_from_layer", f"{what} from", "", f"Layer of the head that feeds its {what} most, by z.", "", ""
        ),
        Column(f"{kind}_from_head", f"{what} from", "", "The head of it.", "", ""),
        Column(f"{kind}_from_score", f"{kind.upper()}-composition", "", "Its composition score.", _ELHAGE, _COMPOSED),
        Column(
            f"{kind}_from_z",
            f"{kind.upper()}-composition z",
            "deviations",
            "Standard deviations of the squared score above its mean over all rotations; the largest of many.",
            _OWN,
            "0 for one pair; this is the largest over all heads that could feed it",
        ),
    )


COLUMNS = (
    Column("parameters", "parameters", "", "Numbers in its own W_Q and W_O, biases of W_Q included.", "", ""),
    Column("shared_parameters", "shared parameters", "", "Those in its W_K and W_V, which a group shares.", "", ""),
    *_spectral("qk", "W_Q W_Kᵀ, the input norm's gain folded in, without rotation"),
    *_spectral("ov", "W_V W_O, the input norm's gain folded in"),
    Column(
        "copy_eigenvalue",
        "copying, eigenvalues",
        "",
        "Eigenvalue positivity of E W_V W_O U over the whole vocabulary: −1 to 1.",
        _ELHAGE,
        _TURNED,
    ),
    Column(
        "copy_eigenvalue_effective",
        "copying, eigenvalues after the first MLP",
        "",
        "The same over sampled tokens as the first MLP leaves them, both ends centred.",
        _OWN,
        _TURNED,
    ),
    Column(
        "copy_raw",
        "copying",
        "deviations",
        "Mean z-score of the attended token's own logit, tokens as they are embedded.",
        _OWN,
        _TURNED,
    ),
    Column("copy_raw_low", "", "deviations", "Lower end of its 95 % bootstrap interval over tokens.", "", ""),
    Column("copy_raw_high", "", "deviations", "Upper end.", "", ""),
    Column(
        "copy_effective",
        "copying after the first MLP",
        "deviations",
        "Mean z-score of the attended token's own logit, tokens as the first MLP leaves them.",
        _OWN,
        _TURNED,
    ),
    Column("copy_effective_low", "", "deviations", "Lower end of its 95 % bootstrap interval over tokens.", "", ""),
    Column("copy_effective_high", "", "deviations", "Upper end.", "", ""),
    Column(
        "preferred_offset",
        "preferred offset",
        "tokens",
        "The offset at which the kernel of its mean query and mean key is largest.",
        "Su et al. 2021 for the rotation; the mean is attlas' own",
        "any offset",
    ),
    Column(
        "kernel_share", "kernel's share", "share", "The kernel's softmax there.", _OWN, "the column kernel_share_chance"
    ),
    Column(
        "kernel_measured",
        "attention there",
        "share",
        "The attention that was measured at that offset.",
        "",
        "the column kernel_even",
    ),
    Column("kernel_even", "", "share", "What an even spread over the visible keys would measure there.", "", ""),
    Column(
        "previous_share",
        "kernel, previous token",
        "share",
        "The kernel's softmax at offset 1.",
        _OWN,
        "as kernel_share",
    ),
    Column("previous_measured", "attention, previous token", "share", "Measured attention at offset 1.", "", ""),
    *(column for kind in KINDS for column in _composed(kind)),
    Column("feeds_layer", "feeds", "", "Layer of the head that it feeds most, by z, over all three kinds.", "", ""),
    Column("feeds_head", "feeds", "", "The head of it.", "", ""),
    Column("feeds_kind", "feeds", "", "What that head makes of it: q, k or v.", "", ""),
    Column("feeds_score", "composition", "", "The composition score.", _ELHAGE, _COMPOSED),
    Column(
        "feeds_z",
        "composition z",
        "deviations",
        "Standard deviations of the squared score above its mean over all rotations; the largest of many.",
        _OWN,
        "0 for one pair; this is the largest over all heads that it could feed",
    ),
)


@dataclass(frozen=True, eq=False)
class ProjectionTable(Table):
    """A row for every head, and the records that it was made from, which a picture needs.

    Parameters
    ----------
    heads : tuple of (int, int)
        Layer and head of each row.
    spectra : Spectra
        Singular values and what they are summed up in.
    copying : Copying, optional
        Copying scores.
    compositions : tuple of Composition
        Of kind "q", "k" and "v"; empty if they were not asked for, or cannot be had.
    kernel : OffsetKernel, optional
        Kernels by offset; None without a text.
    reasons : mapping
        "copying", "composition" or "kernel" -> why its columns are None, for those that are.
    chance : mapping
        Column -> standard deviation of what heads turned at random give, around 0.
    provenance : Provenance
        How it was made.
    """

    heads: tuple[tuple[int, int], ...]
    spectra: Spectra
    copying: Copying | None
    compositions: tuple[Composition, ...]
    kernel: OffsetKernel | None
    reasons: Mapping[str, str]
    chance: Mapping[str, float]
    provenance: Provenance
    _rows: tuple[dict[str, Any], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.heads)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain types; None where a number does not exist for a head, or was not asked for."""
        return [dict(row) for row in self._rows]

    def row(self, layer: int, head: int) -> dict[str, Any]:
        """Return one head's row."""
        return dict(self._rows[self.heads.index((layer, head))])

    def about(self) -> dict[str, Any]:
        return {
            "columns": {column.name: asdict(column) for column in COLUMNS},
            "chance": dict(self.chance),
            "reasons": dict(self.reasons),
        }


def projection_table(
    projections: Projections,
    source: Capture | str | None = None,
    *,
    copies: bool = True,
    compositions: bool = True,
    tokens: int = 400,
    seed: int = 0,
    progress: Progress | None = None,
) -> ProjectionTable:
    """Sum up what the weights of every head say.

    Parameters
    ----------
    projections : Projections
        What `attlas.projections` gave.
    source : Capture or str, optional
        A capture of this model or a text, for the kernels by offset; without it those columns are None.
    copies : bool
        Compute copying scores, where the model has a vocabulary at both ends.
    compositions : bool
        Compute Q-, K- and V-composition of all pairs of heads.
    tokens, seed : int
        For the copying scores; see `copying`.
    progress : callable, optional
        Called as ``progress(done, total, what)``; each part counts by itself.

    Returns
    -------
    ProjectionTable
        Numbers that a model does not have are None, and `ProjectionTable.reasons` says why.

    Notes
    -----
    Spectra, positivities and compositions have the gain of the norm in front of each layer folded in. Cost: a QR and a
    dim × dim decomposition per head for spectra and eigenvalues; two passes over the vocabulary for copying; a product
    per pair of layers for compositions; one forward pass for a text.
    """
    reasons: dict[str, str] = {}
    copied = kernel = None
    # First, so that a wrong capture is refused before anything is computed.
    if source is not None:
        kernel = offset_kernel(projections, source, progress=progress)
        silent = {layer.reason for layer in kernel.layers if layer.reason}
        if silent:
            reasons["kernel"] = "; ".join(sorted(silent))
    else:
        reasons["kernel"] = "it needs a text, for the mean query and the mean key"
    found = spectra(projections, normed=True, progress=progress)
    if copies:
        try:
            copied = copying(projections, tokens=tokens, seed=seed, progress=progress)
        except UnsupportedModelError as error:
            reasons["copying"] = str(error)
    else:
        reasons["copying"] = "it was not asked for"
    composed: tuple[Composition, ...] = ()
    if compositions:
        try:
            composed = tuple(composition(projections, kind, normed=True, progress=progress) for kind in KINDS)
        except UnsupportedModelError as error:
            reasons["composition"] = str(error)
    else:
        reasons["composition"] = "it was not asked for"
    parts = [_weights_rows(projections), _spectra_rows(found), _copying_rows(copied), _kernel_rows(kernel)]
    parts.append(_composition_rows(composed))
    heads = tuple((layer, head) for layer, head in projections.heads)
    empty = dict.fromkeys(column.name for column in COLUMNS)
    rows = []
    for at in heads:
        row: dict[str, Any] = {"layer": at[0], "head": at[1], **empty}
        for part in parts:
            row |= part.get(at, {})
        rows.append(row)
    chance = {} if copied is None else {_COPIES[name]: spread.deviation for name, spread in copied.chance.items()}
    settings = {"normed": True, "tokens": tokens, "seed": seed}
    provenance = replace(projections.provenance, settings={**projections.provenance.settings, **settings})
    return ProjectionTable(heads, found, copied, composed, kernel, reasons, chance, provenance, tuple(rows))


_Rows = dict[tuple[int, int], dict[str, Any]]

_COPIES = {
    "eigenvalue_residual": "ov_positivity",
    "eigenvalue": "copy_eigenvalue",
    "eigenvalue_effective": "copy_eigenvalue_effective",
    "raw": "copy_raw",
    "raw_low": "copy_raw_low",
    "raw_high": "copy_raw_high",
    "effective": "copy_effective",
    "effective_low": "copy_effective_low",
    "effective_high": "copy_effective_high",
}


def _weights_rows(projections: Projections) -> _Rows:
    return {
        (view.layer, head): {"kv_head": head // view.group, "module": view.name, "kind": view.kind, **_counts(view)}
        for view in (projections[number] for number in projections.layers)
        for head in range(view.heads)
    }


def _counts(view: LayerProjections) -> dict[str, int]:
    own = view.query[0].numel() + view.output[0].numel()
    own += 0 if view.query_bias is None else view.query_bias[0].numel()
    shared = view.key[0].numel() + view.value[0].numel()
    shared += sum(bias[0].numel() for bias in (view.key_bias, view.value_bias) if bias is not None)
    return {"parameters": own, "shared_parameters": shared}


def _spectra_rows(found: Spectra) -> _Rows:
    return {
        (layer.layer, head): {**_circuit("qk", layer.qk, head), **_circuit("ov", layer.ov, head)}
        for layer in found.layers
        for head in range(len(layer.qk.norm))
    }


def _circuit(name: str, circuit: CircuitSpectra, head: int) -> dict[str, float]:
    row = {f"{name}_norm": float(circuit.norm[head])}
    for number, values in circuit.numbers.items():
        row[f"{name}_{number}"] = float(values[head])
        row[f"{name}_{number}_chance"] = circuit.chance.mean[number]
    return row


def _copying_rows(found: Copying | None) -> _Rows:
    if found is None:
        return {}
    rows = {}
    for row in found.rows():
        # The residual eigenvalue score is that of the spectra already.
        kept = {_COPIES[name]: value for name, value in row.items() if name in _COPIES}
        kept.pop("ov_positivity")
        rows[row["layer"], row["head"]] = kept
    return rows


def _kernel_rows(found: OffsetKernel | None) -> _Rows:
    if found is None:
        return {}
    rows = {}
    first = found.offsets.index(1) if 1 in found.offsets else None
    for layer in found.layers:
        for i, head in enumerate(layer.heads):
            rows[layer.layer, head] = {
                "previous_share": None if first is None or layer.shares is None else float(layer.shares[i, first]),
                "previous_measured": (
                    None if first is None or layer.measured is None else float(layer.measured[i, first])
                ),
            }
    for row in found.rows():
        rows[row["layer"], row["head"]] |= {
            "preferred_offset": row["preferred_offset"],
            "kernel_share": row["share"],
            "kernel_share_chance": row["chance"],
            "kernel_measured": row["measured"],
            "kernel_even": row["even"],
        }
    return rows


def _composition_rows(found: tuple[Composition, ...]) -> _Rows:
    rows: _Rows = {}
    for one in found:
        z, scores = one.z.cpu(), one.scores.cpu()
        for j, layer in enumerate(one.layers):
            for h in range(one.heads[j]):
                row = rows.setdefault((layer, h), {})
                into = z[:, :, j, h].masked_fill(~_real(one, one.paired[:, j]), float("-inf"))
                out = z[j, h].masked_fill(~_real(one, one.paired[j]), float("-inf"))
                if bool(into.isfinite().any()):
                    i, g = divmod(int(into.argmax()), into.shape[1])
                    best = (one.layers[i], g, float(scores[i, g, j, h]), float(into[i, g]))
                    row |= dict(zip(_names(f"{one.kind}_from"), best, strict=True))
                if bool(out.isfinite().any()):
                    i, g = divmod(int(out.argmax()), out.shape[1])
                    if float(out[i, g]) > row.get("feeds_z", float("-inf")):
                        best = (one.layers[i], g, float(scores[j, h, i, g]), float(out[i, g]))
                        row |= dict(zip(_names("feeds"), best, strict=True)) | {"feeds_kind": one.kind}
    return rows


def _names(prefix: str) -> list[str]:
    return [f"{prefix}_{what}" for what in ("layer", "head", "score", "z")]


def _real(one: Composition, layers: Any) -> Any:
    """Return which heads of the chosen layers exist, (layer, head)."""
    import torch

    present = torch.arange(one.scores.shape[1]) < torch.tensor(one.heads)[:, None]
    return present & layers.cpu()[:, None]
