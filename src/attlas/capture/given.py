"""What an attention function is given, read by the conventions of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from attlas.capture.asked import Asked, Asking, ask
from attlas.capture.call import Call, describe
from attlas.capture.corner import Corner, corners, disproved
from attlas.capture.holding import gap_of
from attlas.capture.visibility import MaskMemory
from attlas.errors import CaptureError, UnsupportedModelError

AttentionFunction = Callable[..., tuple[Tensor, Any]]

# These hand a kernel something else than the mask and the tensors of one batch, so what it computed cannot be
# described.
REFUSED = ("flash", "flex", "paged")

# Tensors that attention functions are handed beside those of the call; what others mean is not known.
_UNDERSTOOD = frozenset({"position_bias", "s_aux", "position_ids", "cache_position", "encoder_hidden_states"})


@dataclass(frozen=True, eq=False)
class Given:
    """What an attention function is given.

    Parameters
    ----------
    function : callable
        The attention function.
    implementation : str
        The name that it was asked for by.
    module : torch.nn.Module
        Whose attention it is.
    query, key, value : Tensor
    mask : Tensor or other, optional
    options : dict
        Its keyword arguments.
    more : tuple
        Further positional arguments.
    """

    function: AttentionFunction
    implementation: str
    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    options: dict[str, Any]
    more: tuple[Any, ...] = ()

    @property
    def fused(self) -> bool:
        """Whether a fused kernel runs, which keeps its scores in float32 or better."""
        return self.implementation != "eager"

    def run(self) -> tuple[Tensor, Any]:
        """Run the function.

        Raises
        ------
        CaptureError
            Its keys have a gap that it does not know of.
        """
        if gap_of(self.key):
            raise CaptureError(
                "past_key_values: wanted a causal text without padding, in layers that the plan computes, got a call "
                "that is left to the model's own kernel, which needs all keys; use the model's own cache"
            )
        tensors = self.query, self.key, self.value, self.mask
        return self.function(self.module, *tensors, *self.more, **self.options)

    # ---- as it was computed

    @property
    def refusal(self) -> str:
        """Why the call cannot be described; empty if it can."""
        if any(word in self.implementation for word in REFUSED):
            return (
                f"it uses attn_implementation={self.implementation!r}, whose kernel takes no mask that can be read; "
                'call model.set_attn_implementation("sdpa") first'
            )
        if self.more:
            return f"it calls {self.function.__name__} with positional arguments whose meaning is not known"
        if self.options.get("dropout"):
            return "it drops attention weights at random; call model.eval() first"
        if self.options.get("cache") is not None:
            return (
                "it uses a paged cache, in which the sequences of a batch lie mixed; generate without continuous "
                "batching"
            )
        if self.query.dim() != 4:
            return f"its query has {self.query.dim()} axes, not (batch, head, query, dim)"
        return ""

    def call(self, output: Tensor, lse: Tensor | None, masks: MaskMemory) -> Call:
        """Describe the call by what was given and what came of it, (batch, head, n_query, value_dim)."""
        return describe(output=output, lse=lse, fused=self.fused, **self._settings(masks))

    def _settings(self, masks: MaskMemory) -> dict[str, Any]:
        if self.mask is not None and not isinstance(self.mask, Tensor):
            raise UnsupportedModelError(f"its mask is a {type(self.mask).__name__}, which cannot be read")
        # transformers' own fused function does not know of sinks, and runs without them.
        knows_sinks = self.function is not sdpa_attention_forward
        return {
            "query": self.query,
            "key": self.key,
            "value": self.value,
            "mask": self.mask,
            "masks": masks,
            "scale": self.options.get("scaling"),
            "is_causal": self._is_causal,
            "bias": self.options.get("position_bias"),
            "softcap": self.options.get("softcap"),
            "sinks": self.options.get("s_aux") if knows_sinks else None,
            "window": self.options.get("sliding_window"),
        }

    @property
    def _is_causal(self) -> bool:
        """Whether the kernel hides the future by itself, the first query at the first key."""
        # Eager functions see only the mask.
        return self.fused and self.mask is None and self.query.shape[2] > 1 and self._module_is_causal

    @property
    def _module_is_causal(self) -> bool:
        is_causal = self.options.get("is_causal")
        return bool(getattr(self.module, "is_causal", True) if is_causal is None else is_causal)

    # ---- to be computed in the function's place

    def asking(self) -> Asking:
        """Offer the call to whoever may compute it in the function's place."""
        return Asking(self._asked, self._disproved)

    def _asked(self, masks: MaskMemory) -> Asked:
        reason = self.refusal or _reason_to_leave(self.options)
        if reason:
            raise UnsupportedModelError(reason)
        asked = ask(**self._settings(masks))
        last = asked.n_query == 1 and self._module_is_causal
        if self.mask is None and not self._is_causal and asked.n_query != asked.n_key:
            # Either one query of a text that is read through a cache, or a question to another text.
            asked = replace(asked, aligned=last)
        if last and asked.aligned and asked.rule.structured and not asked.rule.causal:
            # To the last row, which sees all before it, it is the same; but patterns ask whether a head is causal.
            asked = replace(asked, rule=replace(asked.rule, causal=True))
        return asked

    def _disproved(self) -> str | None:
        cut = corners(self.query, self.key, self.value, self.mask, self.options, causal=self._is_causal)
        return next((found for corner in cut if (found := disproved(corner, self._run_on)) is not None), None)

    def _run_on(self, corner: Corner) -> Call:
        tensors = {"query": corner.query, "key": corner.key, "value": corner.value, "mask": corner.mask}
        part = replace(self, options=corner.options, **tensors)
        output, _ = part.run()
        return part.call(output.transpose(1, 2), None, MaskMemory())


def _reason_to_leave(options: Mapping[str, Any]) -> str:
    """Return why a call that can be described cannot be computed in the function's place; empty if it can."""
    unknown = [name for name, value in options.items() if isinstance(value, Tensor) and name not in _UNDERSTOOD]
    if unknown:
        return f"it hands its kernel {unknown[0]}, whose meaning is not known"
    if options.get("output_attentions"):
        return "its attention weights were asked for (output_attentions=True), which only its own kernel gives"
    bias = options.get("position_bias")
    if isinstance(bias, Tensor) and bias.requires_grad and torch.is_grad_enabled():
        return "its bias is learned, and no gradient would reach it; run it under torch.no_grad()"
    return ""
