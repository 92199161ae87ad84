"""`attlas.ablate`: heads taken out of everything that a model computes inside a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

from torch import nn

from attlas.capture.averaging import Reference, mean_outputs
from attlas.capture.interface import changers
from attlas.capture.intervention import Ablation, editing, module_of
from attlas.capture.language_model import LanguageModel
from attlas.errors import ArgumentError, complaint

Kind = Literal["zero", "mean", "pattern"]
"""What becomes of a head; `ablate` explains."""


@contextmanager
def ablate(
    model: LanguageModel | nn.Module,
    heads: Sequence[tuple[int | str, int]],
    kind: Kind = "zero",
    reference: Reference | None = None,
) -> Iterator[None]:
    """Take attention heads out of everything that `model` computes inside the block, on this thread.

    Parameters
    ----------
    model : LanguageModel or torch.nn.Module
        What `attlas.load` returned, or any module that `attlas.capture` can hear. It stays as it is: nothing of it is
        changed, and other threads run it unablated.
    heads : sequence of (layer, head)
        Which heads. Layers are numbered as a capture numbers them: attention modules in the order of their first call,
        from 0; or named by their module, which means every turn of a module that runs several times.
    kind : {"zero", "mean", "pattern"}
        What becomes of a head's output, before the output projection. All keys and values stay in place, so other heads
        lose only what they would have read from this one's output downstream.

        ``"zero"``
            It is 0.
        ``"mean"``
            It is its mean over all positions of `reference`, at every position.
        ``"pattern"``
            It is 0, and all attention patterns of all layers stay those of the run without this ablation: every kernel
            gets the clean run's queries, keys, mask and bias, with the ablated run's values. What is measured is then
            what the head passes on through values and the residual stream, not where it makes others look
            (Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits").
    reference : str, dict, or sequence of these; for ``kind="mean"``
        Texts (with a LanguageModel), or inputs of the model's forward without padding. They are run at once, without
        gradients, before the block begins.

    Raises
    ------
    ArgumentError
        A layer or a head does not exist; `kind`, `heads` or `reference` make no sense; a cache is given to a model
        under ``"pattern"``, or two of that kind are open for one model.
    CaptureError
        On leaving: the block made no attention call. Or: `reference` did not run a layer.
    UnsupportedModelError
        The model is compiled, mixes heads, or remembers something from one pass to the next (``"pattern"``).

    Notes
    -----
    Ablations may be nested: the last one opened has the last word on a head. Zero and mean ablations hold while
    generating with a cache too, and cost nothing to speak of. A pattern-preserving one runs every pass twice, first
    without itself (and without gradients), and holds that pass's queries and keys, O(layers · n · dim), like a capture.

    With an `attlas.capture` open as well, on either side, the capture holds what the kernels computed in the ablated
    run; a head's output, if kept, is what its kernel gave, before it was taken away.

    Examples
    --------
    >>> with attlas.ablate(lm, [(18, 6)]):  # doctest: +SKIP
    ...     lm.model(**inputs)
    """
    module = module_of(model)
    rows = [checked_heads(heads)]
    if kind not in get_args(Kind):
        raise ArgumentError(complaint("kind", wanted='"zero", "mean" or "pattern"', got=repr(kind)))
    if (kind == "mean") != (reference is not None):
        wanted = 'a text, or inputs of the model, with kind="mean"' if kind == "mean" else f"none with kind={kind!r}"
        raise ArgumentError(complaint("reference", wanted=wanted, got="none" if reference is None else "one"))
    means = mean_outputs(model, reference) if reference is not None else None
    ablation = Ablation(module, rows, means=means, patterns="clean pass" if kind == "pattern" else "own")
    with ExitStack() as stack:
        if kind == "pattern":
            _refuse_two(ablation)
            for part in module.modules():
                # In front of all other hooks, which then see both passes alike.
                hook = part.register_forward_pre_hook(ablation.before, with_kwargs=True, prepend=True)
                stack.callback(hook.remove)
        stack.enter_context(editing(module, ablation))
        yield
    ablation.check()


def _refuse_two(ablation: Ablation) -> None:
    for other in changers():
        if isinstance(other, Ablation) and other.patterns == "clean pass" and other.shares(ablation):
            raise ArgumentError(
                complaint(
                    "kind",
                    wanted='one "pattern" ablation of a model at a time',
                    got="a second one",
                    way_out="give all heads to one",
                )
            )


def checked_heads(heads: Sequence[tuple[int | str, int]]) -> dict[int | str, list[int]]:
    """Return which heads of which layers, or raise an ArgumentError."""
    rows: dict[int | str, list[int]] = {}
    wanted = "a non-empty list of (layer, head)"
    if isinstance(heads, str | Mapping) or not isinstance(heads, Sequence) or not len(heads):
        raise ArgumentError(complaint("heads", wanted=wanted, got=repr(heads)))
    for pair in heads:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise ArgumentError(complaint("heads", wanted=wanted, got=repr(pair)))
        layer, head = pair
        if not (isinstance(layer, str) or _is_number(layer)) or not _is_number(head):
            raise ArgumentError(complaint("heads", wanted="layers and heads as numbers from 0", got=repr(pair)))
        if head in rows.setdefault(layer, []):
            raise ArgumentError(complaint("heads", wanted="each head once", got=f"{pair!r} twice"))
        rows[layer].append(head)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
