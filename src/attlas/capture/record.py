"""What is kept of one attention module while the model runs, and how calls with a cache become one matrix."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attlas.capture.call import Call
from attlas.capture.keeping import Keeper
from attlas.capture.layer import Layer, rounding_unit
from attlas.capture.probe import Probe, shadow
from attlas.capture.visibility import Rule
from attlas.matrix import RelativeBias

_TILE_ENTRIES = 2**22


@dataclass(frozen=True)
class Wanted:
    """What a capture is to keep.

    Parameters
    ----------
    heads : list of int, optional
        Which heads; all by default.
    values, output : bool
        Whether to keep them as well.
    """

    heads: list[int] | None = None
    values: bool = False
    output: bool = False


class Record:
    """One attention module's matrix so far: a first call, and the calls that continue it through a cache."""

    def __init__(self, name: str, call: Call, keeper: Keeper, wanted: Wanted) -> None:
        self.name = name
        self._keeper = keeper
        self._wanted = wanted
        call = call if wanted.heads is None else call.narrowed(wanted.heads)
        self._call = replace(
            call,
            rule=_moved_rule(call.rule, keeper),
            bias=_moved_bias(call.bias, keeper),
            sinks=None if call.sinks is None else keeper.place(call.sinks),
            lse=None,
            shadows=None,
            **dict.fromkeys(("query", "key", "value", "output", "source"), torch.empty(0)),
        )
        self._source = weakref.ref(call.source)
        self._dtype = call.query.dtype
        self._precision = max(rounding_unit(call.output.dtype), rounding_unit(keeper.dtype_of(call.query.dtype)))
        self._parts: dict[str, list[Tensor]] = {
            part: [] for part in ("query", "key", "lse", "probe_values", "probe_output", "values", "output")
        }
        self._lse_known = True
        self._n_query = self._n_key = 0
        self._layer: Layer | None = None
        self._add(call, call.n_key)

    # ---- continuing

    def extend(self, call: Call) -> bool:
        """Take the call in if it continues this record; tell whether it does."""
        call = call if self._wanted.heads is None else call.narrowed(self._wanted.heads)
        if not self._alike(call):
            return False
        rule = self._constant_keys(call)
        fresh = 0
        if rule is None:
            rule = self._grown_keys(call)
            fresh = call.n_query
        if rule is None:
            return False
        bias = self._joined_bias(call) if fresh else self._call.bias
        if (bias is None) != (self._call.bias is None) or (call.bias is None) != (self._call.bias is None):
            return False
        self._call = replace(self._call, rule=rule, bias=bias, window=call.window)
        self._add(call, fresh)
        return True

    def _alike(self, call: Call) -> bool:
        first, mine = self._parts["key"][0], self._call
        key_shape = (call.key.shape[0], call.key.shape[1], call.key.shape[3])
        sinks_same = (call.sinks is None) == (mine.sinks is None) and (
            call.sinks is None or mine.sinks is None or torch.equal(self._keeper.place(call.sinks), mine.sinks)
        )
        return (
            key_shape == (first.shape[0], first.shape[1], first.shape[3])
            and call.query.shape[1] == self._parts["query"][0].shape[1]
            and call.query.dtype == self._dtype
            and (call.scale, call.softcap) == (mine.scale, mine.softcap)
            and sinks_same
        )

    def _constant_keys(self, call: Call) -> Rule | None:
        """Return the rule, if the call asks the very same keys again: cross-attention to what an encoder gave."""
        rule = self._call.rule
        same = (
            self._source() is call.source
            and call.n_key == self._n_key
            and not (rule.causal or call.rule.causal)
            and rule.window is None
            and call.rule.window is None
            and rule.structured
            and call.rule.structured
            and call.bias is None
            and self._call.bias is None
        )
        return rule if same and _same(rule.padding, _moved_rule(call.rule, self._keeper).padding) else None

    def _grown_keys(self, call: Call) -> Rule | None:
        """Return the rule of the whole, if the call brings new queries and their keys to a cache of this record's."""
        fresh, kept = call.n_query, call.n_key - call.n_query
        dropped = self._n_key - kept
        if kept < 1 or dropped < 0 or not (call.rule.structured and self._call.rule.structured):
            return None
        if not (self._call.rule.causal or self._n_query == 1):
            return None
        if not all(
            torch.equal(self._keeper.place(call.key[:, :, i]), self._column(dropped + i))
            for i in {0, kept // 2, kept - 1}
        ):
            return None
        theirs = _moved_rule(call.rule, self._keeper)
        padding = self._padding_with(theirs, call)
        n_query, n_key = self._n_query + fresh, self._n_key + fresh
        for window in self._windows(call, dropped):
            rule = Rule(True, window, padding)
            shapes = (n_query, n_key), (fresh, call.n_key)
            if self._still_holds(window) and _continues(rule, theirs, *shapes, self._keeper.device):
                return rule
        return None

    def _windows(self, call: Call, dropped: int) -> list[int | None]:
        guesses = [self._call.rule.window, call.rule.window]
        if dropped and call.n_query == 1:
            guesses.append(call.n_key)
        if call.window is not None:
            guesses += [call.window, call.window + 1]
        return list(dict.fromkeys([*guesses, None]))

    def _still_holds(self, window: int | None) -> bool:
        """Whether the rows so far see the same under this window as under their own."""
        mine = self._call.rule.window
        widest = min((w for w in (mine, window) if w is not None), default=self._n_key)
        return mine == window or widest >= self._n_key

    def _padding_with(self, theirs: Rule, call: Call) -> Tensor | None:
        """Key padding of the whole: mine, then whether each new query may see itself."""
        batch = self._parts["key"][0].shape[0]
        mine = self._call.rule.padding
        device = self._keeper.device
        own = torch.arange(call.n_query, device=device)
        seen = theirs.seen(own, call.n_query, call.n_key)
        itself = seen[:, :, own, own + call.n_key - call.n_query].unsqueeze(2)
        if mine is None and bool(itself.all()):
            return None
        before = mine if mine is not None else torch.ones(batch, 1, 1, self._n_key, dtype=torch.bool, device=device)
        size = max(before.shape[0], itself.shape[0])
        return torch.cat([before.expand(size, -1, -1, -1), itself.expand(size, 1, -1, -1)], dim=-1)

    def _joined_bias(self, call: Call) -> Tensor | RelativeBias | None:
        """One table for the whole; None if the call's bias is not this record's continued."""
        mine, theirs = self._call.bias, _moved_bias(call.bias, self._keeper)
        if not (isinstance(mine, RelativeBias) and isinstance(theirs, RelativeBias)):
            return None
        older, newer = mine.table, theirs.table
        ahead = mine.lowest - theirs.lowest
        common = min(newer.shape[1] - ahead, older.shape[1])
        if ahead < 0 or common < 1 or not torch.equal(newer[:, ahead : ahead + common], older[:, :common]):
            return None
        return RelativeBias(torch.cat([newer[:, :ahead], older], dim=1), theirs.lowest)

    def _column(self, index: int) -> Tensor:
        for part in self._parts["key"]:
            if index < part.shape[2]:
                return part[:, :, index]
            index -= part.shape[2]
        raise IndexError(index)

    # ---- keeping

    def _add(self, call: Call, fresh: int) -> None:
        """Keep the call's queries and its last `fresh` keys."""
        keep, parts = self._keeper.keep, self._parts
        shadows = call.shadows
        parts["query"].append(keep(call.query))
        shown = shadow(call.output) if shadows is None else shadows[1]
        parts["probe_output"].append(self._keeper.place(shown, convert=False))
        if self._wanted.output:
            parts["output"].append(keep(call.output))
        if fresh:
            value = call.value[:, :, call.n_key - fresh :]
            parts["key"].append(keep(call.key[:, :, call.n_key - fresh :]))
            shown = shadow(value) if shadows is None else shadows[0][:, :, call.n_key - fresh : call.n_key]
            parts["probe_values"].append(self._keeper.place(shown, convert=False))
            if self._wanted.values:
                parts["values"].append(keep(value))
        if call.lse is None:
            self._lse_known = False
        else:
            seen = call.rule.sees_something(call.n_query, call.n_key, call.lse.device)
            parts["lse"].append(
                self._keeper.place(torch.where(seen & ~call.lse.isnan(), call.lse, -torch.inf), convert=False)
            )
        self._n_query += call.n_query
        self._n_key += fresh
        self._fused = call.fused
        self._layer = None

    def layer(self) -> Layer:
        """Return what was captured so far."""
        if self._layer is None:
            for part, tensors in self._parts.items():
                if len(tensors) > 1:
                    self._parts[part] = [self._keeper.joined(tensors)]
            whole = {part: tensors[0] if tensors else None for part, tensors in self._parts.items()}
            query, key, values, output = (whole[part] for part in ("query", "key", "probe_values", "probe_output"))
            if query is None or key is None or values is None or output is None:
                raise RuntimeError(f"{self.name}: an empty record")
            single = rounding_unit(torch.float32)
            # A fused kernel scores in float32 or better; eager functions do in their own dtype, and take the softmax
            # in float32.
            scores = min(single, rounding_unit(self._dtype)) if self._fused else max(single, rounding_unit(self._dtype))
            kernel = self._precision if self._fused else max(single, self._precision)
            self._layer = Layer(
                name=self.name,
                query=query,
                key=key,
                scale=self._call.scale,
                rule=self._call.rule,
                bias=self._call.bias,
                softcap=self._call.softcap,
                sinks=self._call.sinks,
                lse=whole["lse"] if self._lse_known else None,
                probe=Probe(values, output, kernel, max(scores, rounding_unit(query.dtype))),
                values=whole["values"],
                output=whole["output"],
            )
        return self._layer


def _moved_rule(rule: Rule, keeper: Keeper) -> Rule:
    return replace(rule, mask=keeper.place(rule.mask, convert=False)) if isinstance(rule.mask, Tensor) else rule


def _moved_bias(bias: Tensor | RelativeBias | None, keeper: Keeper) -> Tensor | RelativeBias | None:
    if isinstance(bias, RelativeBias):
        return RelativeBias(keeper.place(bias.table, convert=False), bias.lowest)
    return None if bias is None else keeper.place(bias, convert=False)


def _same(mine: Tensor | None, theirs: Tensor | None) -> bool:
    if mine is None or theirs is None:
        return mine is theirs
    return torch.equal(mine, theirs)


def _continues(
    whole: Rule, part: Rule, whole_shape: tuple[int, int], part_shape: tuple[int, int], device: torch.device
) -> bool:
    """Prove that the last rows of the whole see just what the call's rows saw, a block of rows at a time."""
    n_query, n_key = whole_shape
    fresh, columns = part_shape
    dropped = n_key - columns
    for rows in _row_blocks(fresh, n_key, device):
        expected = whole.seen(rows + n_query - fresh, n_query, n_key)
        actual = torch.nn.functional.pad(part.seen(rows, fresh, columns), (dropped, 0))
        if not torch.equal(*torch.broadcast_tensors(expected, actual)):
            return False
    return True


def _row_blocks(n_rows: int, n_key: int, device: torch.device) -> Iterator[Tensor]:
    height = max(1, _TILE_ENTRIES // n_key)
    for start in range(0, n_rows, height):
        yield torch.arange(start, min(start + height, n_rows), device=device)
