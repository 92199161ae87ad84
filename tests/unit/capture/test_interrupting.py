"""A run that nobody waits for ends between two blocks, and leaves the model as it was."""

from typing import Any

import pytest
import torch

from attlas.capture.interrupting import interruptible
from explained import TEXT, speaker


class Stop(Exception):  # noqa: N818 - no error: it is not wanted any more
    """The run is not wanted any more."""


def test_a_run_ends_in_front_of_the_next_block() -> None:
    lm = speaker()
    model: Any = lm.model
    blocks = list(model.model.layers)
    run: list[int] = []
    hooks = [block.register_forward_hook(lambda *_, i=i: run.append(i)) for i, block in enumerate(blocks)]

    def check() -> None:
        if run:
            raise Stop

    with pytest.raises(Stop), interruptible(lm.model, check):
        lm.read(TEXT)
    assert run == [0]
    for hook in hooks:
        hook.remove()
    assert all(not block._forward_pre_hooks for block in blocks)


def test_a_run_that_is_wanted_gives_what_it_gives() -> None:
    lm = speaker()
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1

    expected = lm.read(TEXT)
    with interruptible(lm.model, check):
        found = lm.read(TEXT)
    assert asked == len(found)
    for layer in found.layers:
        assert torch.equal(found[layer].query, expected[layer].query)
