"""What the first layers make of single tokens: the embedding, and the embedding after the first MLP.

A head deep in the model is not given the token embedding. The nearest thing to it that needs no text is the state of a
token after the first block with its attention switched off: the "effective embedding". It is not modelled here but run:
the model's own first block, whatever its norms, scalings and parallel branches are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attlas.errors import ArgumentError, UnsupportedModelError, complaint
from attlas.projections.norms import norm_of
from attlas.projections.tracing import Run

if TYPE_CHECKING:
    from attlas.projections.views import LayerProjections, Norm
    from attlas.projections.whole import Projections

CHUNK = 2048
"""Tokens that are run at once."""

LINE = 32
"""Tokens of one made-up text: short, so that no mask and no position is large."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The two ends of the residual stream, as circuits in vocabulary space need them.

    Parameters
    ----------
    embedding : Tensor, (rows, d_model)
        The model's table of token embeddings.
    unembedding : Tensor, (rows, d_model)
        The output layer, a row a token.
    norm : Norm, optional
        The final norm between the residual stream and the output layer.
    size : int
        How many tokens there are; tables may have more rows, as padding.
    first : LayerProjections
        The first viewed layer of the stream.
    layers : tuple of int
        The layers that read and write this residual stream.
    output_norms : mapping
        Layer -> the norm that its attention's output passes on the way into the stream (Gemma 2, OLMo 2), if any.
    """

    embedding: Tensor
    unembedding: Tensor
    norm: Norm | None
    size: int
    first: LayerProjections
    layers: tuple[int, ...]
    output_norms: Mapping[int, Norm]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that circuits are computed in: float32, or float64 for a float64 model."""
        return torch.float64 if self.unembedding.dtype == torch.float64 else torch.float32

    def folded(self, states: Tensor) -> Tensor:
        """Fold the final norm's gain and centring into rows of the unembedding; (…, d_model).

        Notes
        -----
        Of the final norm ``(x − mean) / rms · gain + bias``, the gain and the centring act on each contribution by
        itself; the division is one positive number a position, and the bias is the same for all contributions: neither
        changes which token a head favours. The fold may be done on either side: `heard` does it to what a head writes.
        """
        states = states.detach().to(self.dtype)
        if self.norm is None:
            return states
        states = states * self.norm.gain.detach().to(self.dtype)
        return states - states.mean(-1, keepdim=True) if self.norm.centred else states

    def writer(self, view: LayerProjections) -> Tensor:
        """Return W_O of a layer's heads with the gain and centring of a norm behind the attention folded in."""
        output = view.output.detach().to(self.dtype)
        norm = self.output_norms.get(view.layer)
        if norm is None:
            return output
        if norm.centred:
            output = output - output.mean(-1, keepdim=True)
        return output * norm.gain.detach().to(self.dtype)

    def heard(self, written: Tensor) -> Tensor:
        """Return what the output layer hears of what a head writes, so that ``unembedding @ heard`` are its logits."""
        written = written.detach().to(self.dtype)
        if self.norm is None:
            return written
        if self.norm.centred:
            written = written - written.mean(-1, keepdim=True)
        return written * self.norm.gain.detach().to(self.dtype)

    def blocks(self, rows: int = 8192) -> Iterator[slice]:
        """Cut the vocabulary into blocks."""
        return (slice(start, min(start + rows, self.size)) for start in range(0, self.size, rows))


def vocabulary_of(projections: Projections) -> Vocabulary:
    """Return the two ends of a model's residual stream, proved on one short run.

    Raises
    ------
    UnsupportedModelError
        The model has no token embedding, or no output layer over the vocabulary; or more than a norm stands between the
        last block and that layer, so that what a head writes does not reach it as it is.

    Notes
    -----
    Costs one forward pass over the few tokens that the projections were found with.
    """
    name = type(projections.model).__name__
    embedding, unembedding = projections.embedding, projections.unembedding
    if embedding is None or unembedding is None:
        ends = {"token embedding": embedding, "output layer over the vocabulary (unembedding)": unembedding}
        missing = " and no ".join(what for what, there in ends.items() if there is None)
        raise UnsupportedModelError(
            f"{name}: has no {missing}, so its heads have no circuits in vocabulary space; "
            "load the model with its language-model head, or ask for spectra and compositions, which need neither"
        )
    if getattr(getattr(projections.model, "config", None), "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"{name}: has an encoder and a decoder; circuits in vocabulary space are for models of one stack of blocks"
        )
    blocks, layers = _stack(projections)
    tokenizer = None if projections.lm is None else projections.lm.tokenizer
    size = min(embedding.shape[0], unembedding.shape[0], *(() if tokenizer is None else (len(tokenizer),)))
    first, norm = projections[layers[0]], projections.final_norm
    direct, output_norms = _proof(projections, blocks, layers)
    widths = {embedding.shape[1], unembedding.shape[1], first.output.shape[-1]}
    if len(widths) > 1 or not direct:
        raise UnsupportedModelError(
            f"{name}: its residual stream does not reach the vocabulary through one final norm alone (further layers, "
            "or blocks that normalise the stream), so what a head writes is not what the logits are given; "
            "ask for spectra and compositions, which do not need it"
        )
    return Vocabulary(embedding, unembedding, norm, size, first, layers, output_norms)


def _stack(projections: Projections) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the list of blocks that runs last, which is the one that logits come from, and its viewed layers."""
    modules = dict(projections.model.named_modules())
    own = [view for view in (projections[number] for number in projections.layers) if view.kind == "self"]
    if not own:
        raise UnsupportedModelError(f"{type(projections.model).__name__}: no layer of self-attention was viewed")
    last, _ = _blocks(modules, own[-1].name)
    return last, tuple(view.layer for view in own if _blocks(modules, view.name)[0] is last)


def _proof(projections: Projections, blocks: nn.Module, layers: tuple[int, ...]) -> tuple[bool, Mapping[int, Norm]]:
    """Run the model once and see what stands between its heads and its logits.

    Returns
    -------
    bool
        Whether the output layer is given the last block's states, normalised by the final norm, times a number.
    dict
        The norms that are given what an attention module gave.
    """
    model: Any = projections.model
    modules = dict(model.named_modules())
    inside = [(name, module) for name, module in modules.items() if "norm" in type(module).__name__.lower()]
    attention: dict[int, Tensor] = {}
    norms: dict[int, Norm] = {}
    seen: dict[str, Tensor] = {}

    def attended(number: int) -> Callable[..., None]:
        return lambda module, args, output: attention.update({number: _first(output)})

    def normalised(name: str) -> Callable[..., None]:
        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            for number, made in attention.items():
                if args and args[0] is made and isinstance(output, Tensor):
                    found = norm_of(Run(name, module, {"states": made}, 0, None, output=output))
                    norms.update({} if found is None else {number: found})

        return after

    with ExitStack() as stack, torch.no_grad():
        for number in layers:
            module = modules[projections[number].name]
            stack.callback(module.register_forward_hook(attended(number)).remove)
        for name, module in inside:
            stack.callback(module.register_forward_hook(normalised(name)).remove)
        last = list(blocks.children())[-1]
        stack.callback(last.register_forward_hook(lambda m, a, output: seen.update(stream=_first(output))).remove)
        head = model.get_output_embeddings()
        stack.callback(head.register_forward_pre_hook(lambda m, args: seen.update(given=args[0])).remove)
        model(**projections.inputs)
    if len(seen) < 2 or seen["stream"].shape[-1] != seen["given"].shape[-1]:
        return False, norms
    stream, wanted = seen["stream"].double(), seen["given"].double()
    stream = stream if projections.final_norm is None else projections.final_norm(stream)
    stream = stream[..., -wanted.shape[-2] :, :]
    factor = (stream * wanted).sum() / stream.square().sum()
    error = (wanted - factor * stream).norm() / wanted.norm()
    rounding = 1e-3 if seen["given"].dtype in (torch.float32, torch.float64) else 5e-2
    return bool(factor > 0) and bool(error < rounding), norms


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple | list) else output


def token_states(projections: Projections, ends: Vocabulary, ids: Tensor, *, with_mlp: bool = False) -> Tensor:
    """Return the residual stream of single tokens, as the model's first block is given it or leaves it.

    Parameters
    ----------
    projections : Projections
        What `attlas.projections` gave.
    ends : Vocabulary
        The stream.
    ids : Tensor, (token,), int64
        Token ids.
    with_mlp : bool
        Run the first block too, with its attention giving nothing: ``x + MLP₀(x)`` in a pre-norm model.

    Returns
    -------
    Tensor, (token, d_model)
        float32, or float64 for a float64 model. Embedding tables other than the tokens' (positions, segments) give
        nothing, so that the states are of the tokens alone; scalings and norms of the embedding are the model's own.

    Raises
    ------
    UnsupportedModelError
        The model's first block cannot be told or run on token ids.

    Notes
    -----
    One run of the embedding, or of the first block, over the tokens; later blocks are not run. The model is not
    changed. Source: the "effective embedding" of Wang et al. 2022 (appendix of "Interpretability in the Wild"), run
    through the model itself.
    """
    model = projections.model
    modules = dict(model.named_modules())
    blocks, inside = _blocks(modules, ends.first.name)
    block = next(blocks.children())
    own = dict(block.named_modules()).get(inside)
    if own is None and with_mlp:
        raise UnsupportedModelError(
            f"{ends.first.name}: the first block has no such attention, so it cannot be run without mixing tokens"
        )
    device = ends.embedding.device
    probe = _Probe(with_mlp)
    with ExitStack() as stack, torch.no_grad():
        for module in _switched_off(model, block, own, ends):
            stack.callback(module.register_forward_hook(_nothing).remove)
        stack.callback(block.register_forward_pre_hook(probe.before, with_kwargs=True).remove)
        stack.callback(block.register_forward_hook(probe.after).remove)
        states = [_run(model, probe, part.to(device)) for part in ids.split(CHUNK)]
    found = torch.cat(states)
    return found if found.dtype == torch.float64 else found.float()


class _Done(Exception):  # noqa: N818 - no error: it ends a run whose rest is not needed
    """What was wanted is known."""


class _Probe:
    """Notes a block's residual stream, and ends the run."""

    def __init__(self, with_mlp: bool) -> None:
        self.with_mlp = with_mlp
        self.state: Tensor | None = None

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self.with_mlp:
            given = (*args, *kwargs.values())
            self.state = next(x for x in given if isinstance(x, Tensor) and x.is_floating_point() and x.dim() == 3)
            raise _Done

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.state = _first(output)
        raise _Done


def _run(model: nn.Module, probe: _Probe, ids: Tensor) -> Tensor:
    texts = nn.functional.pad(ids, (0, -len(ids) % LINE), value=int(ids[0])).view(-1, LINE)
    inputs: dict[str, Any] = {"input_ids": texts}
    if "use_cache" in inspect.signature(model.forward).parameters:
        inputs["use_cache"] = False
    probe.state = None
    with suppress(_Done):
        model(**inputs)
    if probe.state is None or probe.state.shape[:2] != texts.shape:
        raise UnsupportedModelError(f"{type(model).__name__}: its first block gives no state for each token")
    return probe.state.detach().flatten(0, 1)[: len(ids)]


def in_first_block(view: LayerProjections) -> bool:
    """Tell whether a layer is in the first block, where it is given the bare embedding."""
    path = view.name.split(".")
    return next((part for part in path if part.isdigit()), "0") == "0"


def _blocks(modules: dict[str, nn.Module], attention: str) -> tuple[nn.Module, str]:
    """Return the outermost list of modules that an attention module is in, and its name inside of a block."""
    path = attention.split(".")
    for depth in range(1, len(path) - 1):
        found = modules[".".join(path[:depth])]
        if isinstance(found, nn.ModuleList | nn.Sequential):
            return found, ".".join(path[depth + 1 :])
    raise UnsupportedModelError(f"{attention}: it is in no list of blocks, so the first block cannot be told")


def _switched_off(model: nn.Module, block: nn.Module, own: nn.Module | None, vocabulary: Vocabulary) -> list[nn.Module]:
    """Return what must give nothing: the block's attention, and embeddings of anything but tokens."""
    inside = {id(module) for module in block.modules()}
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    address = vocabulary.embedding.data_ptr()
    others = (table for table in tables if table.weight.data_ptr() != address and id(table) not in inside)
    return [*others] if own is None else [own, *others]


def _nothing(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
    if isinstance(output, Tensor):
        return torch.zeros_like(output)
    first = next(i for i, part in enumerate(output) if isinstance(part, Tensor))
    return type(output)(torch.zeros_like(part) if i == first else part for i, part in enumerate(output))


def token_id(projections: Projections, token: int | str, argument: str = "token") -> int:
    """Return a token's id, given as an id or as its text.

    Raises
    ------
    ArgumentError
        The text is not exactly one token, the id is out of range, or there is no tokenizer to ask.
    """
    size = None if projections.embedding is None else projections.embedding.shape[0]
    if isinstance(token, int) and not isinstance(token, bool):
        if size is not None and not 0 <= token < size:
            raise ArgumentError(complaint(argument, wanted=f"a token id from 0 to {size - 1}", got=token))
        return token
    if not isinstance(token, str) or not token:
        raise ArgumentError(complaint(argument, wanted="a token id, or the text of one token", got=repr(token)))
    tokenizer = None if projections.lm is None else projections.lm.tokenizer
    if tokenizer is None:
        wanted = "a token id, because this model came without a tokenizer"
        raise ArgumentError(complaint(argument, wanted=wanted, got=repr(token)))
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1:
        pieces = ", ".join(repr(tokenizer.decode([piece])) for piece in ids)
        way_out = "choose one of them, or mind the space in front" if ids else ""
        got = f"{token!r}, which is {len(ids)} tokens ({pieces})" if ids else f"{token!r}, which is none"
        raise ArgumentError(complaint(argument, wanted="the text of one token", got=got, way_out=way_out))
    return int(ids[0])


def shown(projections: Projections, ids: list[int]) -> list[str]:
    """Return what tokens stand for, readable; their ids as text where there is no tokenizer."""
    tokenizer = None if projections.lm is None else projections.lm.tokenizer
    if tokenizer is None:
        return [str(token) for token in ids]
    return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]
