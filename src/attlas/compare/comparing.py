"""`attlas.compare`: what a fine-tune or an adapter changed, in the weights and in the attention on a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attlas import __version__
from attlas.capture import LanguageModel
from attlas.capture.asking import document_of, predicts
from attlas.compare.circuits import layer_change
from attlas.compare.comparison import Comparison, Maps
from attlas.compare.layers import Pair, pairs_of
from attlas.compare.mapping import difference_maps
from attlas.compare.modules import FULL, module_table
from attlas.compare.moving import attention_moved, sampled_rows
from attlas.compare.records import LayerChange, Moved, Restored
from attlas.compare.restoring import restored_heads
from attlas.compare.sides import Model, Sides, open_sides, other_changes
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError, complaint
from attlas.matrix.threads import each
from attlas.models import Document
from attlas.models.adapter_file import AdapterFile
from attlas.models.progress import Progress
from attlas.results import Provenance

ROWS = 256
"""Rows of each attention matrix that are measured without being told otherwise."""
WINDOW = 128
"""Tokens on which heads are put back."""
RESTORE = 8
"""Heads that are put back for a measurement."""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def compare(
    base: Model,
    tuned: Model | AdapterFile,
    text: str | Sequence[int] | None = None,
    *,
    rows: int | None = ROWS,
    restore: int = RESTORE,
    window: int = WINDOW,
    directions: int | None = None,
    intruders: int = 10,
    threshold: float = 0.5,
    merge_dtype: str | torch.dtype = "bfloat16",
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Comparison:
    """Find out what training changed, head by head: in the weights, and with a text in the attention and the output.

    Parameters
    ----------
    base : LanguageModel, torch.nn.Module, str or path
        The model before. A name or folder is opened as `attlas.load` opens it.
    tuned : LanguageModel, torch.nn.Module, PeftModel, AdapterFile, str or path
        The model after: another model of the same layout; a folder with a LoRA, rsLoRA or DoRA adapter, which is read
        without PEFT and without running anything from it; or a model into which PEFT has put an adapter, whose base may
        be `base` itself.
    text : str or sequence of int, optional
        What to compare attention and output on; its tokens are the base's.
    rows : int, optional
        How many rows of each attention matrix to measure, one drawn from each of as many equal stretches of the text;
        None for every row.
    restore : int
        How many heads to put back, one at a time, to see which explain the changed output; 0 for none of it.
    window : int
        On how many tokens: the last of the text, read by themselves.
    directions : int, optional
        How many leading singular vectors of a change amplification and overlap are about. By default all that an
        adapter has, as Hu et al. 2021 take them, and 8 of a change of full rank (a fine-tune, DoRA).
    intruders : int
        How many leading left singular vectors of each tuned weight to look for intruder dimensions among; 0 leaves out
        all that needs the singular vectors of whole weights.
    threshold : float
        A singular vector is an intruder if its largest |cosine| with any of the base's is below this.
    merge_dtype : str or torch.dtype
        For the loss of a merge: "bfloat16", "float16" or "float32".
    seed : int
        Of the rows that are drawn.
    progress : callable, optional
        Called as ``progress(done, total, what)`` during each of several parts.
    **options
        Those of `attlas.load`, for names and folders.

    Returns
    -------
    Comparison
        A row a head, a row a module, and with a text what moved and which heads explain it.

    Raises
    ------
    ArgumentError
        The two do not belong together: the first module, layer or head that does not fit is named.
    ModelNotFound, StoreError, UnsupportedModelError, NonFiniteError
        A model or adapter cannot be opened, or does what is not understood; a layer's weights cannot be viewed.
    DocumentError
        The text is empty, too short or too long.

    Notes
    -----
    Weights are compared in float64, and QK and OV stay factored: a LoRA adapter of rank r changes them by at most rank
    2r, a full fine-tune by at most twice the head's width. The tuned model runs with the change added to the weights in
    their own dtype; the columns on merging say what that rounds away.

    Cost: the views of the base (and of a second model), a decomposition of each changed weight and of its change; with
    a text two forward passes without logits, the chosen rows of up to four matrices of each head, and on `window`
    tokens one backward pass and a run for each head that is put back. Memory: of an adapter only the weights that it
    touches are copied; on a text, the base's keys.

    Examples
    --------
    >>> found = attlas.compare("smollm2-135m", "my-adapter", text)  # doctest: +SKIP
    >>> found.ranked("moved", 5)  # doctest: +SKIP
    """
    merging = _merge_dtype(merge_dtype)
    counts = (
        ("restore", restore, 0),
        ("window", window, 2),
        ("directions", 1 if directions is None else directions, 1),
        ("intruders", intruders, 0),
    )
    for name, value, least in counts:
        _check_count(name, value, least)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ArgumentError(complaint("threshold", wanted="a cosine from 0 to 1", got=repr(threshold)))
    sides = open_sides(base, tuned, options)
    document = None if text is None else _document(sides, text)
    chosen = None if document is None else sampled_rows(len(document), rows, seed)
    projections, pairs = pairs_of(sides, progress)
    settings = {
        "tuned": sides.name,
        "tuned_fingerprint": sides.fingerprint,
        "kind": sides.kind,
        "directions": directions,
        "intruders": intruders,
        "threshold": threshold,
        "merge_dtype": str(merging).removeprefix("torch."),
        "torch": torch.__version__,
    }
    if document is not None and chosen is not None:
        settings |= {"tokens": len(document), "rows": len(chosen), "seed": seed, "restore": restore, "window": window}
    provenance = Provenance(__version__, sides.base.name, sides.base.fingerprint, settings)
    with sides.as_base():
        layers = _layers(pairs, directions or _directions(sides), merging, progress)
        modules = module_table(
            sides.changes,
            pairs,
            directions=directions,
            intruders=intruders,
            threshold=threshold,
            merge_dtype=merging,
            provenance=provenance,
            progress=progress,
        )
    reasons: dict[str, str] = {}
    moved: Moved | None = None
    restored: Restored | None = None
    maps: Maps | None = None
    if document is None or chosen is None:
        reasons = dict.fromkeys(("moved", "restored"), "it needs a text")
    else:
        ids = torch.tensor(document.ids, device=next(sides.base.model.parameters()).device)
        moved = attention_moved(sides, pairs, ids, document.tokens, chosen, progress)
        restored = _restored(sides, pairs, ids, window, restore, reasons, progress)

        def draw(heads: Sequence[tuple[int, int]], size: tuple[int, int]) -> dict[tuple[int, int], Tensor]:
            return difference_maps(sides, ids, heads, size)

        maps = draw
    notes = () if sides.tuned is None else other_changes(sides.base.model, sides.tuned.model, sides.changes)
    return Comparison(
        heads=tuple(projections.heads),
        layers=layers,
        modules=modules,
        moved=moved,
        restored=restored,
        kind=sides.kind,
        reasons=reasons,
        notes=notes,
        provenance=provenance,
        _maps=maps,
    )


def _directions(sides: Sides) -> int:
    """Return how many directions a head's change can have by its factors, or `FULL` of a change of full rank."""
    parts = [change.part for change in sides.changes.values() if change.factored]
    if len(parts) < len(sides.changes):
        return FULL
    return 2 * max(part.rank for part in parts if part is not None)


def _layers(
    pairs: Sequence[Pair], directions: int, merging: torch.dtype, progress: Progress | None
) -> tuple[LayerChange, ...]:
    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "comparing heads")

    device = pairs[0].before.query.device
    return tuple(each(lambda pair: layer_change(pair, directions, merging), pairs, device, tell))


def _document(sides: Sides, text: str | Sequence[int]) -> Document:
    lm = sides.base.lm
    if not isinstance(lm, LanguageModel):
        wanted, way_out = "a model with a tokenizer, for a text", "give what attlas.load returned, a name or a folder"
        raise ArgumentError(complaint("base", wanted=wanted, got="a bare module", way_out=way_out))
    if lm.facts.kind not in ("decoder", "encoder"):
        raise ArgumentError(
            complaint("base", wanted="a decoder or an encoder, for a text", got=f"one of kind {lm.facts.kind}")
        )
    document = document_of(lm, text)
    other = None if sides.tuned is None else sides.tuned.lm
    if other is not None and isinstance(text, str) and other.tokenize(text).ids != document.ids:
        raise DocumentError("text: the tuned model's tokenizer cuts it into other tokens than base's; pass token ids")
    return document


def _restored(
    sides: Sides,
    pairs: Sequence[Pair],
    ids: Tensor,
    window: int,
    count: int,
    reasons: dict[str, str],
    progress: Progress | None,
) -> Restored | None:
    if not count:
        reasons["restored"] = "it was not asked for (restore=0)"
        return None
    lm = sides.base.lm
    if lm is None or not predicts(lm):
        reasons["restored"] = "this model predicts no next token"
        return None
    try:
        return restored_heads(sides, pairs, ids, window, count, progress)
    except UnsupportedModelError as error:
        reasons["restored"] = str(error)
        return None


def _merge_dtype(given: str | torch.dtype) -> torch.dtype:
    found = _DTYPES.get(given) if isinstance(given, str) else given
    if found is None or found not in _DTYPES.values():
        raise ArgumentError(complaint("merge_dtype", wanted=f"one of {', '.join(_DTYPES)}", got=repr(given)))
    return found


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ArgumentError(complaint(name, wanted=f"a whole number from {least}", got=repr(value)))
