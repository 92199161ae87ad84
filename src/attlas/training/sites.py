"""Where an adapter goes: the modules that were meant, and the rows and columns of their weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, UnsupportedModelError, by_reason, complaint
from attlas.projections import LayerProjections, Projections
from attlas.projections import projections as view_projections
from attlas.projections.weights import is_turned
from attlas.training.settings import ATTENTION, GROUPS, MLP, Targets

_NAMES: Mapping[str, tuple[str, ...]] = {
    "gate": ("gate_proj", "wi_0", "w1"),
    "up": ("up_proj", "wi_1", "w3", "c_fc", "fc1", "fc_in", "dense_h_to_4h", "wi", "lin1", "intermediate.dense"),
    "down": ("down_proj", "w2", "c_proj", "fc2", "fc_out", "dense_4h_to_h", "wo", "lin2", "output.dense", "Wo"),
}
"""How the modules of an MLP are called in the families of transformers; matched to a name's end, in a block."""

_NEAR = 6  # names that an error shows


@dataclass(frozen=True, eq=False)
class Site:
    """A module that is adapted.

    Parameters
    ----------
    name : str
        The module.
    roles : tuple of str
        What of it is meant: "query", "output", "up" …, or "module" where it was named itself.
    shape : (int, int)
        Its weight's, (out, in), however the module stores it.
    layer : int, optional
        The number of its layer.
    rows : Tensor, bool, (out,), optional
        Which outputs are adapted; all of them for None.
    columns : Tensor, bool, (in,), optional
        Which inputs are adapted; all of them for None.
    slices : tuple of Tensor, bool, (out,)
        The outputs that have a matrix A of their own, where there are several such.
    """

    name: str
    roles: tuple[str, ...]
    shape: tuple[int, int]
    layer: int | None = None
    rows: Tensor | None = None
    columns: Tensor | None = None
    slices: tuple[Tensor, ...] = ()

    @property
    def narrowed(self) -> bool:
        """Whether only a part of the weight is adapted, or its parts apart."""
        return self.rows is not None or self.columns is not None or bool(self.slices)


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is one of those whose weight an adapter can go beside: Linear, or GPT-2's Conv1D."""
    return isinstance(module, nn.Linear) or is_turned(module)


def shape_of(module: Any) -> tuple[int, int]:
    """Return (out, in) of a linear module, which Conv1D stores as (in, out)."""
    out, into = module.weight.shape
    return (into, out) if is_turned(module) else (out, into)


def find_sites(lm: LanguageModel | nn.Module, targets: Targets) -> list[Site]:
    """Find what is to be adapted.

    Parameters
    ----------
    lm : LanguageModel or torch.nn.Module
        The model. It runs once on 16 tokens where projections of the attention or of the MLP are asked for, because
        `attlas.projections` finds and proves where each head lies.
    targets : Targets

    Returns
    -------
    list of Site
        In the order of the model's modules.

    Raises
    ------
    ArgumentError
        A name matches nothing (near names are listed), or a layer or head is not there.
    UnsupportedModelError
        A weight that was asked for is not one that an adapter can go beside.
    """
    model = lm.model if isinstance(lm, LanguageModel) else lm
    asked = list(dict.fromkeys(part for name in targets.projections for part in GROUPS.get(name, (name,))))
    roles = [name for name in asked if name in ATTENTION]
    inner = [name for name in asked if name in (*MLP, "mlp")]
    named = [name for name in asked if name not in roles and name not in inner]
    finder = _Finder(model, targets)
    if roles or inner or targets.layers is not None or targets.heads is not None:
        finder.views = _viewed(lm, targets, roles)
    found: dict[str, Site] = {}
    for one in (*finder.attention(roles), *finder.mlp(inner), *finder.named(named)):
        found[one.name] = _joined(found[one.name], one) if one.name in found else one
    if not found:
        raise ArgumentError(complaint("projections", wanted="names that match a module", got=repr(asked)))
    order = {name: number for number, (name, _) in enumerate(model.named_modules())}
    return sorted(found.values(), key=lambda site: order[site.name])


def _viewed(lm: LanguageModel | nn.Module, targets: Targets, roles: Sequence[str]) -> Projections:
    views = view_projections(lm, unrouted="report")
    numbers = views.layers
    wanted = [*(targets.layers or ()), *(layer for layer, _ in targets.heads or ())]
    if missing := sorted({layer for layer in wanted if layer not in numbers}):
        raise ArgumentError(
            complaint("layers", wanted=f"numbers from {numbers[0]} to {numbers[-1]}", got=", ".join(map(str, missing)))
        )
    for layer, head in targets.heads or ():
        if head >= views[layer].heads:
            got = f"head {head}"
            raise ArgumentError(complaint(f"heads of layer {layer}", wanted=f"0 to {views[layer].heads - 1}", got=got))
    if views.unrouted and roles and not wanted:
        # Some layers would be left out without a word.
        raise UnsupportedModelError(f"{by_reason(views.unrouted)}; name the other layers, or modules, to adapt those")
    return views


class _Finder:
    """Looks for modules in one model."""

    def __init__(self, model: nn.Module, targets: Targets) -> None:
        self._targets = targets
        self._linear = {name: module for name, module in model.named_modules() if is_linear(module)}
        self._lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
        self.views: Projections | None = None

    # ---- attention

    def attention(self, roles: Sequence[str]) -> Iterable[Site]:
        """Find the modules of queries, keys, values and outputs."""
        if not roles or self.views is None:
            return
        self._refuse_shared(self.views)
        for view in self.views:
            heads = self._heads(view)
            if not heads:
                continue
            modules: dict[str, list[str]] = {}
            for role in roles:
                modules.setdefault(view.modules[role], []).append(role)
            for name, together in modules.items():
                yield self._site(view, name, together, heads)

    def _heads(self, view: LayerProjections) -> list[int]:
        """Return which heads of a layer are meant."""
        if self._targets.layers is not None and view.layer not in self._targets.layers:
            return []
        if self._targets.heads is None:
            return list(range(view.heads))
        return [head for layer, head in self._targets.heads if layer == view.layer]

    def _refuse_shared(self, views: Projections) -> None:
        if self._targets.layers is None and self._targets.heads is None:
            return
        users: dict[str, list[int]] = {}
        for view in views:
            users.setdefault(view.name, []).append(view.layer)
        for name, layers in users.items():
            if len(layers) > 1:
                got = f"some of them, but {name} serves the layers {', '.join(map(str, layers))}"
                raise ArgumentError(complaint("layers", wanted="all layers of a model that shares weights", got=got))

    def _site(self, view: LayerProjections, name: str, roles: Sequence[str], heads: Sequence[int]) -> Site:
        module = self._linear.get(name)
        if module is None:
            raise UnsupportedModelError(
                f"{name}: its projections are no linear modules of their own, so no adapter can go beside them"
            )
        shape = shape_of(module)
        if "output" in roles:
            if len(roles) > 1:
                raise UnsupportedModelError(f"{name}: is the output projection and another one at once")
            chosen = torch.zeros(view.heads, view.value_dim, dtype=torch.bool)
            chosen[list(heads)] = True
            return Site(name, ("output",), shape, view.layer, columns=_some(chosen.flatten()))
        slices = [self._rows(view, role, heads, shape[0]) for role in roles]
        rows = torch.stack(slices).any(0)
        apart = tuple(slices) if self._targets.separate and len(slices) > 1 else ()
        return Site(name, tuple(roles), shape, view.layer, rows=_some(rows), slices=apart)

    @staticmethod
    def _rows(view: LayerProjections, role: str, heads: Sequence[int], out: int) -> Tensor:
        """Return which outputs of a module are those heads' queries, keys or values."""
        chosen = sorted(set(heads if role == "query" else (head // view.group for head in heads)))
        rows = torch.zeros(out, dtype=torch.bool)
        rows[view.rows[role][chosen].flatten()] = True
        if role == "query" and view.modules.get("gate") == view.modules["query"]:
            # A head's gate is made beside its queries, of the same states.
            rows[view.rows["gate"][chosen].flatten()] = True
        return rows

    # ---- everything else

    def mlp(self, names: Sequence[str]) -> Iterable[Site]:
        """Find the linear modules of each block outside of its attention."""
        if not names or self.views is None:
            return
        used = {name for view in self.views for name in view.modules.values()}
        inside = tuple(f"{view.name}." for view in self.views)
        blocks = self._blocks()
        members = {
            name: blocks[self._block(name)]
            for name in self._linear
            if self._block(name) in blocks and name not in used and not name.startswith(inside)
        }
        for role in names:
            found = [name for name in members if role == "mlp" or _ends(name, _NAMES[role])]
            if not found:
                tails = sorted({name.rsplit(".", 1)[-1] for name in members})
                way_out = f"this model's blocks have {', '.join(tails) or 'none'}: name one of those, or mlp"
                raise ArgumentError(
                    complaint("projections", wanted=f"a module known as {role}", got="none", way_out=way_out)
                )
            for name in found:
                if self._targets.layers is None or set(members[name]) & set(self._targets.layers):
                    yield Site(name, (role,), shape_of(self._linear[name]), members[name][0])

    def named(self, names: Sequence[str]) -> Iterable[Site]:
        """Find modules by their names, or their names' ends."""
        blocks = self._blocks() if self.views is not None else {}
        for wanted in names:
            found = [name for name in self._linear if _ends(name, (wanted,))]
            if not found:
                raise ArgumentError(
                    complaint(
                        "projections", wanted="names that match a module", got=repr(wanted), way_out=self._near(wanted)
                    )
                )
            for name in found:
                layers = blocks.get(self._block(name), [])
                if self._targets.layers is None or set(layers) & set(self._targets.layers):
                    yield Site(name, ("module",), shape_of(self._linear[name]), layers[0] if layers else None)

    def _near(self, wanted: str) -> str:
        known = [*ATTENTION, *MLP, *GROUPS, *dict.fromkeys(name.rsplit(".", 1)[-1] for name in self._linear)]
        near = difflib.get_close_matches(wanted, [*known, *self._linear], n=_NEAR, cutoff=0.5)
        return f"near it are {', '.join(near)}" if near else f"there are {', '.join(known)}"

    def _blocks(self) -> dict[str, list[int]]:
        """Return the member of a list of blocks that each layer's attention lies in: name -> layers."""
        found: dict[str, list[int]] = {}
        for view in self.views or ():
            found.setdefault(self._block(view.name), []).append(view.layer)
        return {name: layers for name, layers in found.items() if name}

    def _block(self, name: str) -> str:
        """Return the outermost member of a list of modules that a module lies in; "" for none."""
        around = [(len(one), one) for one in self._lists if name.startswith(f"{one}.")]
        if not around:
            return ""
        first = min(around)[1]
        return f"{first}.{name.removeprefix(first + '.').partition('.')[0]}"


def _ends(name: str, ends: Iterable[str]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


def _some(mask: Tensor) -> Tensor | None:
    return None if bool(mask.all()) else mask


def _joined(a: Site, b: Site) -> Site:
    """Return the site of a module that was found twice: for two layers that share it, or named beside its roles."""
    if a.roles == b.roles:
        return a
    return Site(a.name, (*a.roles, *(role for role in b.roles if role not in a.roles)), a.shape, a.layer)
