"""Which number of a model's answer is explained: a token's probability, a class, a difference, or one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

Measure = Literal["log_prob", "logit"]


@dataclass(frozen=True)
class Target:
    """A number that the model gives, to be explained.

    Parameters
    ----------
    position : int or None
        The position that answers, from 0; where a walk through the attention begins. None for an answer that is pooled
        evenly over all tokens.
    token : int, optional
        The token whose prediction at that position is explained; None for the model's own top prediction there.
    against : int, optional
        A second token: then the difference between the two logits is explained.
    label : int, optional
        The class whose logit is explained, for a model that classifies.
    function : callable, optional
        ``function(output)``: makes one number, differentiable, of what the model returns.
    measure : {"log_prob", "logit"}
        What of the token's prediction; differences and classes are of logits.
    name : str
        What people read.
    """

    position: int | None
    token: int | None = None
    against: int | None = None
    label: int | None = None
    function: Callable[[Any], Tensor] | None = None
    measure: Measure = "log_prob"
    name: str = ""

    def value(self, output: Any, row: int) -> Tensor:
        """Return the number, of what the model returned for one text; `row` is the target's row of its logits."""
        if self.function is not None:
            return self.function(output).reshape(())
        if self.label is not None:
            return output.logits[0, self.label].float()
        logits = output.logits[0, row]
        logits = logits if logits.dtype.itemsize == 8 else logits.float()
        token = int(logits.argmax()) if self.token is None else self.token
        if self.against is not None:
            return logits[token] - logits[self.against]
        return logits.log_softmax(-1)[token] if self.measure == "log_prob" else logits[token]

    def resolved(self, output: Any, row: int, tokenizer: Any) -> Target:
        """Return the same, knowing which token it is and what to call it."""
        if self.function is not None or self.label is not None or self.token is not None:
            return self
        token = int(output.logits[0, row].argmax())
        return replace(self, token=token, name=repr(tokenizer.decode([token])))
