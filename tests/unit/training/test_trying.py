"""A trial's parts are those of whole gradients: dense autograd at every step, with the products inside the weights."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attlas.errors import ArgumentError, NonFiniteError
from attlas.testing.tiny_models import TINY_MODELS, TinyModel
from attlas.training.losses import mean_loss
from attlas.training.trying import RATE, SCALE, WARMUP, trial

STEPS = 5
FAMILIES = [tiny for tiny in TINY_MODELS if tiny.family in ("Llama", "GPT-2", "Phi-3")]


def batches(tiny: TinyModel, count: int = STEPS) -> list[dict[str, Tensor]]:
    made = []
    for seed in range(count):
        ids = tiny.inputs(batch=2, length=11, seed=seed)["input_ids"]
        made.append({"input_ids": ids, "labels": ids.clone().masked_fill(torch.arange(11) < 4, -100)})
    return made


def linear(model: nn.Module) -> list[str]:
    found = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) or "Conv1D" in str(type(one))]
    return [name for name in found if name != "lm_head"]


def dense(
    model: Any, names: list[str], given: list[dict[str, Tensor]], rank: int, seed: int
) -> tuple[dict[str, Tensor], list[float]]:
    """Return −G ⊙ ΔW for each weight and step, (step, out, in), with whole gradients of changed weights.

    G is the mean of what one batch gives with the weights before and after the step.
    """
    weights = {name: model.get_submodule(name).weight for name in names}
    turned = {name: type(model.get_submodule(name)).__name__ == "Conv1D" for name in names}
    thin: dict[str, tuple[Tensor, Tensor]] = {}
    for number, name in enumerate(names):
        out, into = weights[name].shape[::-1] if turned[name] else weights[name].shape
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        down = ((2 * torch.rand(rank, into, generator=generator) - 1) / into**0.5).double().requires_grad_()
        thin[name] = (down, torch.zeros(out, rank, dtype=torch.float64, requires_grad=True))
    base = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = torch.optim.Adam([one for pair in thin.values() for one in pair], lr=RATE)
    before: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    losses = []

    def gradients(changes: dict[str, Tensor], batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], float]:
        with torch.no_grad():
            for name in names:
                weights[name].copy_(base[name] + (changes[name].T if turned[name] else changes[name]))
        model.zero_grad()
        loss = mean_loss(model, batch["input_ids"], batch["labels"])
        loss.backward()
        found = {name: weight.grad.T if turned[name] else weight.grad for name, weight in weights.items()}
        return {name: one.clone() for name, one in found.items()}, float(loss.detach())

    for step, batch in enumerate(given):
        changes = {name: (SCALE * up @ down).detach() for name, (down, up) in thin.items()}
        after, loss = gradients(changes, batch)
        losses.append(loss)
        if before:
            earlier, _ = gradients(before, batch)
            for name in names:
                parts[name].append(-(after[name] + earlier[name]) / 2 * (changes[name] - before[name]))
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP)
        for name, (down, up) in thin.items():
            down.grad, up.grad = SCALE * up.detach().T @ after[name], SCALE * after[name] @ down.detach().T
        before = changes
        optimizer.step()
    with torch.no_grad():
        for name in names:
            weights[name].copy_(base[name])
    return {name: torch.stack(one) for name, one in parts.items()}, losses


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("tiny", FAMILIES, ids=lambda tiny: tiny.family)
def test_parts_are_those_of_dense_gradients(tiny: TinyModel, rank: int) -> None:
    model = tiny.build().double()
    names = linear(model)
    wanted, losses = dense(model, names, batches(tiny), rank, seed=7)
    found, heard = trial(model, names, batches(tiny), rank=rank, seed=7)
    torch.testing.assert_close(torch.tensor(heard), torch.tensor(losses), rtol=1e-5, atol=0)  # losses are float32
    for name in names:
        scale = float(wanted[name].abs().sum())
        # The loss is float32 from the logits on, in both.
        torch.testing.assert_close(found[name].rows, wanted[name].sum(2), rtol=1e-4, atol=1e-6 * scale)
        torch.testing.assert_close(found[name].columns, wanted[name].sum(1), rtol=1e-4, atol=1e-6 * scale)
        torch.testing.assert_close(found[name].falls, found[name].columns.sum(1), rtol=1e-6, atol=1e-9 * scale)


def test_the_parts_of_a_step_add_up_to_what_the_loss_falls_by() -> None:
    """To second order: what is seen of the same batch before and after each of several steps."""
    tiny = FAMILIES[0]
    model = tiny.build().double()
    same = [batches(tiny, 1)[0]] * 4
    found, losses = trial(model, linear(model), same, seed=1)
    steps = torch.stack([one.falls for one in found.values()]).sum(0).tolist()
    for fall, earlier, later in zip(steps, losses, losses[1:], strict=False):
        assert fall == pytest.approx(earlier - later, rel=0.03)
        assert fall > 0


def test_the_model_is_left_as_it_was() -> None:
    tiny = FAMILIES[0]
    model = tiny.build().train()
    model.model.norm.eval()  # pyright: ignore
    before = {name: one.clone() for name, one in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    trial(model, linear(model), batches(tiny))
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items())
    assert all(one.requires_grad and one.grad is None for one in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_same_seed_finds_the_same() -> None:
    tiny = FAMILIES[0]
    model = tiny.build()
    first, again, other = (trial(model, linear(model), batches(tiny), seed=seed)[0] for seed in (1, 1, 2))
    for name in linear(model):
        assert torch.equal(first[name].rows, again[name].rows)
        assert not torch.equal(first[name].rows, other[name].rows)


def test_a_loss_that_is_no_number_stops_the_trial() -> None:
    tiny = FAMILIES[0]
    model: Any = tiny.build()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="loss of the trial is nan after 0 steps"):
        trial(model, linear(model), batches(tiny))


def test_a_module_that_does_not_run_is_named() -> None:
    tiny = FAMILIES[0]
    model: Any = tiny.build()
    model.idle = nn.Linear(4, 4)
    with pytest.raises(ArgumentError, match="wanted modules that the loss depends on, got idle"):
        trial(model, ["idle"], batches(tiny))
