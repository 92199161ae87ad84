"""Runs a model again from the middle: blocks that come before a change return what they returned the first time.

Models are mostly stacks of blocks, each with one attention layer. Where that is so, a survey of one pass keeps
each block's output, and a later pass on the same inputs can skip all blocks that end before a given layer begins.
Whether that is exact depends on the model (one block may talk to another behind the stack's back), so whoever resumes
has to compare a part of the result with the survey's pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from attlas.capture.hearing import Place
from attlas.capture.interface import Scoring
from attlas.capture.intervention import Editor, editing

_resuming = threading.RLock()
"""Blocks are replaced by what they returned on one thread at a time; on others they run."""


@dataclass
class _Block:
    module: nn.Module
    calls: int = 0
    first: int = 0  # how many attention calls came before it
    last: int = 0  # and before its end
    output: Any = None


class Survey(Editor):
    """What one pass through a model consists of: its attention layers, their heads, and the blocks around them.

    Attributes
    ----------
    heads : dict
        Layer number -> how many heads.
    names : dict
        Layer number -> module name.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.heads: dict[int, int] = {}
        self.names: dict[int, str] = {}
        self._model = model
        self._blocks = [
            _Block(part) for module in model.modules() if isinstance(module, nn.ModuleList) for part in module
        ]
        self._calls = 0

    def given(self, place: Place, scoring: Scoring) -> Scoring:
        """Change nothing."""
        return scoring

    def gave(self, place: Place, output: Tensor) -> Tensor:
        """Note the layer."""
        self._calls += 1
        self.heads[place.number] = output.shape[1]
        self.names[place.number] = place.name
        return output

    def run(self, run: Callable[[], Any]) -> Any:
        """Run the pass that is surveyed, and return what it returned."""
        with ExitStack() as stack:
            for block in self._blocks:
                stack.callback(block.module.register_forward_pre_hook(partial(self._begins, block)).remove)
                stack.callback(block.module.register_forward_hook(partial(self._ends, block)).remove)
            stack.enter_context(editing(self._model, self))
            result = run()
        # A module that ran twice returned two things; one without attention is cheap, or part of another block.
        self._blocks = [block for block in self._blocks if block.calls == 1 and block.last > block.first]
        return result

    def _begins(self, block: _Block, *_: object) -> None:
        if self.inside():
            block.calls += 1
            block.first = self._calls

    def _ends(self, block: _Block, _module: nn.Module, _args: object, output: object) -> None:
        if self.inside():
            block.last, block.output = self._calls, output

    @property
    def resumable(self) -> bool:
        """Whether there are blocks that may be skipped, and no module that attends twice."""
        return bool(self._blocks) and all(turn == 0 for _, turn in self.numbers)

    @contextmanager
    def resumed(self, layer: int, rows: int) -> Iterator[None]:
        """Skip what comes before a layer in the passes that this thread runs inside the block.

        Parameters
        ----------
        layer : int
            The number of the first layer that has to run.
        rows : int
            How many times the surveyed batch of one is repeated.
        """
        me = threading.get_ident()
        with _resuming, ExitStack() as stack:
            for block in self._blocks:
                if block.last <= layer:
                    stack.enter_context(_returning(block.module, block.output, rows, me))
            yield

    def forget(self) -> None:
        """Let go of the blocks' outputs."""
        self._blocks = []


@contextmanager
def _returning(module: nn.Module, output: object, rows: int, thread: int) -> Iterator[None]:
    """Let `module` return `output` on one thread, and run on all others."""
    own = vars(module).get("forward")
    original = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return _repeated(output, rows) if threading.get_ident() == thread else original(*args, **kwargs)

    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _repeated(output: Any, rows: int) -> Any:
    """Repeat what has a batch of one."""
    if isinstance(output, Tensor):
        alone = output.dim() >= 2 and output.shape[0] == 1
        return output.expand(rows, *output.shape[1:]).clone() if alone else output
    if isinstance(output, tuple | list):
        return type(output)(_repeated(part, rows) for part in output)
    return output
