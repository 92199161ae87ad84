"""In every family, ablating a head is what a plain hook on the output projection's input does, and leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attlas
from attlas.capture import ablate
from attlas.testing.tiny_models import TINY_MODELS
from contract import families

NAMED = [tiny.family for tiny in TINY_MODELS if tiny.named]
OTHERS = [tiny.family for tiny in TINY_MODELS if not tiny.named]

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@contextmanager
def hooked(modules: list[nn.Module], hook: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def numbers(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    with torch.no_grad():
        return families.numbers(model(**inputs))


def same(those: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(those, others, strict=True))


def projections(model: nn.Module, inputs: dict[str, Tensor]) -> dict[int, tuple[nn.Module, int]]:
    """Find each layer's output projection: the module that is given what the heads gave, side by side."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            seen.append((module, args[0].detach().clone()))

    wide = [module for module in model.modules() if getattr(module, "weight", None) is not None]
    with hooked(wide, note), attlas.capture(model, output=True, unrouted="report") as cap:
        numbers(model, inputs)
    found = {}
    for layer in cap.layers:
        output = cap.output(layer).transpose(1, 2).flatten(2)
        for module, given in seen:
            if given.numel() == output.numel() and torch.equal(given.reshape(output.shape), output):
                found[layer] = (module, cap[layer].shape[1])
                break
    return found


def zeroing(head: int, heads: int) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        width = args[0].shape[-1] // heads
        given = args[0].clone()
        given[..., head * width : (head + 1) * width] = 0
        return (given, *args[1:])

    return hook


@pytest.mark.parametrize("family", NAMED)
def test_zero_is_the_zeroed_slice_of_the_output_projections_input(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    plain = numbers(model, inputs)
    found = projections(model, inputs)
    with attlas.capture(model) as cap:
        numbers(model, inputs)
    assert sorted(found) == cap.layers
    for layer, (module, heads) in found.items():
        for head in (0, heads - 1):
            with hooked([module], zeroing(head, heads)):
                wanted = numbers(model, inputs)
            with ablate(model, [(layer, head)]):
                ablated = numbers(model, inputs)
            assert same(ablated, wanted), (layer, head)
            assert not same(ablated, plain), (layer, head)
    assert same(numbers(model, inputs), plain)


@pytest.mark.parametrize("family", OTHERS)
def test_other_families_agree_where_they_have_such_a_projection(family: str) -> None:
    tiny = families.BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    try:
        found = projections(model, inputs)
    except attlas.CaptureError:
        with pytest.raises(attlas.CaptureError, match="nothing was ablated"), ablate(model, [(0, 0)]):
            numbers(model, inputs)
        return
    for layer, (module, heads) in found.items():
        if sum(module is other for other, _ in found.values()) > 1:
            continue  # a shared projection: a hook would ablate every layer that uses it
        with hooked([module], zeroing(1, heads)):
            wanted = numbers(model, inputs)
        with ablate(model, [(layer, 1)]):
            assert same(numbers(model, inputs), wanted), layer


@pytest.mark.parametrize("kind", ["zero", "mean", "pattern"])
@pytest.mark.parametrize("family", NAMED)
def test_with_a_capture_on_either_side_its_proof_holds(family: str, kind: Any) -> None:
    tiny = families.BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    reference = tiny.inputs(seed=2) if kind == "mean" else None
    chosen = [(0, 1), (1, 0)]
    plain = families.captured(model, inputs)
    with ablate(model, chosen, kind, reference):
        alone = numbers(model, inputs)
    with ablate(model, chosen, kind, reference), attlas.capture(model, values=True, output=True) as inside:
        assert same(numbers(model, inputs), alone)
    with attlas.capture(model, values=True, output=True) as outside, ablate(model, chosen, kind, reference):
        assert same(numbers(model, inputs), alone)
    assert not same(numbers(model, inputs), alone)
    for cap in (inside, outside):
        families.prove(cap)
        assert cap.names == plain.names
        assert all(len(cap.calls(layer)) == 1 for layer in cap.layers)
        patterns = [torch.equal(cap[layer].to_dense(), plain[layer].to_dense()) for layer in cap.layers]
        assert all(patterns) if kind == "pattern" else not all(patterns)


@pytest.mark.parametrize("family", NAMED)
def test_kept_patterns_are_a_run_with_fixed_matrices(family: str) -> None:
    """The definition itself: every layer's dense matrix of the clean run, applied to the ablated run's values."""
    tiny = families.BY_FAMILY[family]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    plain = families.captured(model, inputs)
    with ablate(model, [(0, 1)], "pattern"), attlas.capture(model, values=True, output=True) as cap:
        numbers(model, inputs)
    for layer in cap.layers:
        A, values = plain[layer], cap.values(layer)
        group = A.shape[1] // values.shape[1]
        wanted = A.to_dense().double() @ values.double().repeat_interleave(group, 1)
        assert A.valid_rows.all()
        torch.testing.assert_close(cap.output(layer).double(), wanted, rtol=0, atol=1e-5 * float(values.abs().max()))
    later = [layer for layer in cap.layers if not torch.equal(cap.values(layer), plain.values(layer))]
    assert later, "nothing downstream of an ablated head changed"
