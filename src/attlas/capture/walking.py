"""Goes through a finished run's attention from the top layer down."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

from attlas.capture.attended import Attended
from attlas.capture.result import Capture

Side = Literal["decoder", "encoder"]

_CROSS = re.compile(r"cross_?att|enc_?dec_?att|encoder_att", re.IGNORECASE)


def walk_capture(cap: Capture) -> Iterator[Attended]:
    """Yield a capture's attention calls, the top layer first.

    Parameters
    ----------
    cap : Capture
        A finished capture. Values and outputs are passed on where they were kept.

    Yields
    ------
    Attended
        In the reverse order of the run: of an encoder-decoder model the decoder's layers first, cross-attention before
        the self-attention below it, and then the encoder's.

    Notes
    -----
    Of a layer that ran several times without a cache, the last call. A capture knows modules only by name, so
    cross-attention is told by its module's name, or by keys that are not as many as the queries.
    """
    held = {number: calls[-1] for number, calls in cap.stored_layers().items()}
    sides = sides_of({layer.name for layer in held.values()})
    both = len(set(sides.values())) > 1
    for number in sorted(held, reverse=True):
        layer, side = held[number], sides[held[number].name]
        other_keys = layer.query.shape[2] != layer.key.shape[2] or _CROSS.search(layer.name) is not None
        cross = both and side == "decoder" and other_keys
        yield Attended(number, layer.name, layer.matrix, layer.values, layer.output, side=side, cross=cross)


def sides_of(names: Collection[str]) -> Mapping[str, Side]:
    """Say of each attention module which stack it belongs to.

    A model has two stacks if some of its modules lie in an encoder and some in a decoder. A single one is the
    decoder's side, whatever it is called: there a walk begins.
    """
    first = {name: _first_stack(name) for name in names}
    if {"encoder", "decoder"} <= set(first.values()):
        return {name: "encoder" if stack == "encoder" else "decoder" for name, stack in first.items()}
    return dict.fromkeys(names, "decoder")


def _first_stack(name: str) -> str:
    return next((part for part in name.split(".") if part in ("encoder", "decoder")), "")
