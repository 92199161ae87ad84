"""The gradients of a descent are those of autograd on a dense run; it keeps one block; and it leaves nothing behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

import attlas
from attlas.capture.descent import Descent, descend
from attlas.testing.tiny_models import TINY_MODELS
from contract import families

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}


def logits_of(output: Any) -> Tensor:
    found = getattr(output, "logits", None)
    return output.last_hidden_state if found is None else found


def three_targets(output: Any) -> Tensor:
    logits = logits_of(output)
    return torch.stack([logits[0, -1, 3], logits[-1, -2].log_softmax(-1)[5], logits[0, 8, 7] * logits[-1, -1, 1]])


def llama(layers: int = 2, **options: Any) -> nn.Module:
    tiny = BY_FAMILY["Llama"]
    return type(tiny)(
        tiny.family, tiny.model, tiny.config, {**tiny.options, "num_hidden_layers": layers, **options}
    ).build()


# ---- the truth: a dense attention written out, and autograd through it


@dataclass
class Dense:
    name: str
    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor
    output: Tensor


@contextmanager
def dense_attention(model: Any) -> Iterator[list[Dense]]:
    """Let the model compute softmax(scale · Q Kᵀ + bias) V as it stands, keeping every part of it."""
    calls: list[Dense] = []
    names = {id(module): name for name, module in model.named_modules()}

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        key, value = key.clone(), value.clone()
        groups = query.shape[1] // key.shape[1]
        repeated = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ repeated[0].mT * (kwargs.get("scaling") or query.shape[-1] ** -0.5)
        if kwargs.get("softcap") is not None:
            scores = kwargs["softcap"] * torch.tanh(scores / kwargs["softcap"])
        for added in (kwargs.get("position_bias"), attention_mask):
            scores = scores if added is None else scores + added
        weights = scores.softmax(-1)
        output = weights @ repeated[1]
        calls.append(Dense(names[id(module)], query, key, value, weights, output))
        return output.transpose(1, 2), None

    before = model.config._attn_implementation
    AttentionInterface.register("written_out", attention)
    AttentionMaskInterface.register("written_out", eager_mask)
    model.set_attn_implementation("written_out")
    try:
        yield calls
    finally:
        model.set_attn_implementation(before)
        del AttentionInterface._global_mapping["written_out"]
        del AttentionMaskInterface._global_mapping["written_out"]


def embedded(model: Any, run: Callable[[], Any]) -> tuple[list[Tensor], Any]:
    """Run with the embeddings' outputs as leaves of the graph; return these, and what was returned."""
    leaves: list[Tensor] = []

    def hook(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1] * 1

    modules = [model.get_input_embeddings()]
    if model.config.is_encoder_decoder:
        modules = [model.encoder.get_input_embeddings(), model.decoder.get_input_embeddings()]
    handles = [module.register_forward_hook(hook) for module in dict.fromkeys(modules)]
    try:
        return leaves, run()
    finally:
        for handle in handles:
            handle.remove()


def close(one: Tensor, other: Tensor) -> None:
    # float64 throughout: what differs is the order of sums.
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


TRUTHS = [
    ("Llama", "left"),
    ("Llama", "right"),
    ("GPT-NeoX", "left"),
    ("BERT", "right"),
    ("T5", "right"),
]


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize(("family", "side"), TRUTHS)
def test_gradients_are_those_of_a_dense_run(family: str, side: str, blocks: bool) -> None:
    tiny = BY_FAMILY[family]
    model: Any = tiny.build().double()
    inputs: dict[str, Any] = families.padded(tiny.inputs(batch=2), side)
    descent = descend(model, inputs, three_targets, blocks=blocks)
    attended = list(descent)
    with dense_attention(model) as calls:
        extra = {} if tiny.kind == "encoder" else {"use_cache": False}
        leaves, output = embedded(model, lambda: model(**inputs, **extra))
    values = three_targets(output)
    close(descent.values, values.detach())
    assert [one.name for one in attended] == [one.name for one in reversed(calls)]
    for target, value in enumerate(values):
        truth = torch.autograd.grad(value, leaves, retain_graph=True)
        close(descent.embedding_gradients[target], truth[0])
        if len(leaves) > 1:
            close(descent.decoder_embedding_gradients[target], truth[1])
        for one, dense in zip(attended, reversed(calls), strict=True):
            ends = [dense.output, dense.key, dense.value, dense.weights]
            d_output, d_key, d_value, d_weights = torch.autograd.grad(value, ends, retain_graph=True)
            found = one.gradients[target]
            close(found.output, d_output)
            close(found.key, d_key)
            close(found.value, d_value)
            # What padding itself attends to is left to the kernel, and reaches nothing.
            n_key = one.matrix.shape[3]
            padded = inputs["attention_mask"].shape[1] == n_key
            keys = (inputs["attention_mask"] if padded else torch.ones(2, n_key))[:, None, :, None]
            rows = one.matrix.valid_rows.unsqueeze(-1) * (keys if side == "left" else 1)
            close(one.matrix.to_dense() * rows, dense.weights.detach() * rows)
            assert one.value is not None
            assert one.output is not None
            close(one.value * keys, dense.value.detach() * keys)
            groups = one.matrix.shape[1] // one.value.shape[1]
            shown = found.output @ one.value.repeat_interleave(groups, 1).mT
            close(shown * keys.mT, d_weights * keys.mT)


def test_it_numbers_layers_as_a_capture_does_and_holds_the_same_matrices() -> None:
    tiny = BY_FAMILY["BART"]
    model, inputs = tiny.build(), tiny.inputs(batch=2)
    with torch.no_grad(), attlas.capture(model, values=True, output=True) as cap:
        model(**inputs, use_cache=False)
    found = list(descend(model, inputs, three_targets))
    assert [one.layer for one in found] == cap.layers[::-1]
    for one in found:
        assert one.name == cap.names[one.layer]
        assert torch.equal(one.matrix.query, cap[one.layer].query)
        assert torch.equal(one.matrix.key, cap[one.layer].key)
        assert torch.equal(one.matrix.lse, cap[one.layer].lse)
        assert one.value is not None
        assert one.output is not None
        assert torch.equal(one.value, cap.values(one.layer))
        assert torch.equal(one.output, cap.output(one.layer))


def test_layers_that_share_their_weights_keep_their_numbers() -> None:
    tiny = BY_FAMILY["ALBERT"]
    model, inputs = tiny.build(), tiny.inputs()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(**inputs)
    found = list(descend(model, inputs, three_targets))
    assert [one.layer for one in found] == [1, 0]
    assert [one.name for one in found] == cap.names[::-1]
    for one in found:
        assert torch.equal(one.matrix.query, cap[one.layer].query)


def test_what_a_target_does_not_depend_on_has_gradient_zero() -> None:
    model, inputs = llama(), BY_FAMILY["Llama"].inputs(batch=2)
    descent = descend(model, inputs, lambda output: torch.stack([output.logits[0, 4, 3], output.logits[1, -1, 3]]))
    for one in descent:
        early, late = one.gradients
        assert not early.output[1].any()
        assert not early.value[0, :, 5:].any()
        assert not late.output[0].any()
        assert late.value[1].any()
    assert not descent.embedding_gradients[0, 0, 5:].any()
    assert descent.embedding_gradients[0, 0, :5].any()


def test_a_target_that_depends_on_nothing_of_one_stack() -> None:
    tiny = BY_FAMILY["CLIP"]
    descent = descend(tiny.build(), tiny.inputs(), lambda output: output.text_embeds[0, :2])
    for one in descent:
        of_text = one.name.startswith("text")
        assert [bool(gradients.output.any()) for gradients in one.gradients] == [of_text] * 2


def test_two_stacks_and_what_crosses() -> None:
    for family in ("T5", "BART"):
        tiny = BY_FAMILY[family]
        model = tiny.build()
        found = list(descend(model, tiny.inputs(), three_targets))
        assert [(one.side, one.cross) for one in found] == [
            *[("decoder", True), ("decoder", False)] * 2,
            *[("encoder", False)] * 2,
        ]
        assert all(one.cross == ("EncDec" in one.name or "encoder_attn" in one.name) for one in found)


def test_embeddings_that_are_given() -> None:
    model: Any = llama()
    inputs = BY_FAMILY["Llama"].inputs(batch=2)
    by_ids = descend(model, inputs, three_targets)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    given = descend(model, {"inputs_embeds": embeds}, three_targets)
    assert len(list(by_ids)) == len(list(given)) == 2
    assert torch.equal(given.embeddings, embeds)
    assert torch.equal(by_ids.embeddings, embeds)
    assert torch.equal(by_ids.embedding_gradients, given.embedding_gradients)


# ---- memory


def most_kept(descent: Descent) -> int:
    """Return how many numbers autograd kept at most at one time on the way down."""

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    now = most = 0

    def pack(tensor: Tensor) -> Kept:
        nonlocal now, most
        now += tensor.numel()
        most = max(most, now)
        kept = Kept(tensor)
        weakref.finalize(kept, forget, tensor.numel())
        return kept

    def forget(numbers: int) -> None:
        nonlocal now
        now -= numbers

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        for _ in descent:
            pass
    assert now == 0
    return most


def test_no_more_than_one_block_is_kept() -> None:
    inputs = BY_FAMILY["Llama"].inputs(length=64)
    shallow, deep = (descend(llama(layers), inputs, three_targets) for layers in (2, 8))
    assert (shallow.blocks, deep.blocks) == (2, 8)
    assert 0 < most_kept(deep) == most_kept(shallow)


def test_the_first_pass_keeps_nothing_of_the_blocks() -> None:
    inputs = BY_FAMILY["Llama"].inputs(length=64)
    kept: dict[int, int] = {}
    for layers in (2, 8):
        model, count = llama(layers), 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            descend(model, inputs, three_targets)
        kept[layers] = count
    assert kept[2] == kept[8]


# ---- what is left behind


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    def state() -> Any:
        hooks = [
            (len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
            for module in model.modules()
        ]
        flags = [parameter.requires_grad for parameter in model.parameters()]
        return hooks, flags, torch.is_grad_enabled(), AttentionInterface.get_interface

    before = state()
    gradients = [None if one.grad is None else one.grad.clone() for one in model.parameters()]
    yield
    assert state() == before
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        assert (gradient is None) == (parameter.grad is None)
        assert gradient is None or (parameter.grad is not None and torch.equal(gradient, parameter.grad))


@pytest.mark.parametrize("grad", [True, False])
def test_the_model_stays_as_it_was(grad: bool) -> None:
    model, inputs = llama(), BY_FAMILY["Llama"].inputs()
    model(**inputs).logits.sum().backward()
    next(model.parameters()).requires_grad_(False)
    with unchanged(model), torch.set_grad_enabled(grad):
        for _ in descend(model, inputs, three_targets):
            # Nothing is in force while the caller has its turn.
            assert torch.is_grad_enabled() == grad
            assert model(**inputs).logits.requires_grad == grad


def test_after_exceptions_and_half_way_nothing_is_left() -> None:
    model, inputs = llama(3), BY_FAMILY["Llama"].inputs()

    def failing(output: Any) -> Tensor:
        raise KeyError("mine")

    with unchanged(model), pytest.raises(KeyError, match="mine"):
        descend(model, inputs, failing)
    with unchanged(model), pytest.raises(AttributeError):
        descend(model, {**inputs, "attention_mask": 3}, three_targets)
    with unchanged(model), descend(model, inputs, three_targets) as descent:
        next(iter(descent))
    blocks: Any = model
    handle = blocks.model.layers[1].register_forward_hook(_failing_hook)
    with unchanged(model), pytest.raises(ZeroDivisionError):
        descend(model, inputs, three_targets)
    handle.remove()
    descent = descend(model, inputs, three_targets)
    handle = blocks.model.layers[1].register_forward_hook(_failing_hook)
    with unchanged(model), pytest.raises(ZeroDivisionError):
        list(descent)
    handle.remove()
    assert len(list(descend(model, inputs, three_targets))) == 3


def _failing_hook(*_: object) -> None:
    raise ZeroDivisionError


def test_other_threads_run_and_train_the_model_meanwhile() -> None:
    model, inputs = llama(), BY_FAMILY["Llama"].inputs()
    plain = model(**inputs).logits
    expected = torch.autograd.grad(plain.sum(), list(model.parameters()))
    found: list[Any] = []

    def elsewhere() -> None:
        logits = model(**inputs).logits
        found.append((logits, torch.autograd.grad(logits.sum(), list(model.parameters()))))

    def objective(output: Any) -> Tensor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return three_targets(output)

    inner: Any = model
    hook = inner.model.layers[0].mlp.register_forward_hook(
        lambda *_: (thread := threading.Thread(target=elsewhere_once)).start() or thread.join()
    )
    lock = threading.Lock()

    def elsewhere_once() -> None:
        # Its own pass goes through the same hook.
        if lock.acquire(blocking=False):
            elsewhere()
            lock.release()

    list(descend(model, inputs, objective))
    hook.remove()
    assert len(found) > 2
    for logits, gradients in found:
        assert torch.equal(logits, plain)
        assert all(torch.equal(one, other) for one, other in zip(gradients, expected, strict=True))


def test_a_capture_around_it_hears_nothing_of_it() -> None:
    model, inputs = llama(), BY_FAMILY["Llama"].inputs()
    with attlas.capture(model) as cap:
        model(**inputs)
        list(descend(model, inputs, three_targets))
    assert [len(cap.calls(layer)) for layer in cap.layers] == [1, 1]


def test_in_inference_mode() -> None:
    model = llama()
    with torch.inference_mode():
        inputs = BY_FAMILY["Llama"].inputs(batch=2)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["attention_mask"][0, :3] = 0
        found = list(descend(model, inputs, three_targets))
    assert all(gradients.output.any() for one in found for gradients in one.gradients)


# ---- models that are no chain of blocks


class Attend(nn.Module):
    """A block of its own; `leak` makes it hand its state on behind the stack's back."""

    def __init__(self, width: int, memory: dict[str, Tensor], *, leak: bool, noisy: bool, in_place: bool) -> None:
        super().__init__()
        self.projection = nn.Linear(width, 3 * width)
        self.memory, self.leak, self.noisy, self.in_place = memory, leak, noisy, in_place

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = self.projection(hidden).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        if self.leak:
            out = out + self.memory.get("state", 0)
            self.memory["state"] = torch.tanh(hidden)
        if self.noisy:
            out = out + torch.rand_like(out)
        if self.in_place:
            hidden += out
            return hidden
        return hidden + out


class Attention(Attend):
    """The same, named after what it does."""


class Stack(nn.Module):
    def __init__(self, layers: int = 3, width: int = 8, *, written_over: bool = False, **options: bool) -> None:
        super().__init__()
        self.written_over = written_over
        torch.manual_seed(0)
        self.embed = nn.Linear(5, width)
        self.memory: dict[str, Tensor] = {}
        options = {"leak": False, "noisy": False, "in_place": False, **options}
        self.layers = nn.ModuleList(Attention(width, self.memory, **options) for _ in range(layers))
        self.head = nn.Linear(width, 4)
        self.eval()

    def get_input_embeddings(self) -> nn.Module:
        return self.embed

    def forward(self, pixel_values: Tensor) -> Tensor:
        self.memory.clear()
        hidden = self.embed(pixel_values)
        for layer in self.layers:
            hidden = layer(hidden)
            if self.written_over:
                hidden[:, 0] += 1
        return self.head(hidden)


def of_stack(output: Tensor) -> Tensor:
    return output[0, -1, :2]


def by_autograd(stack: Stack, given: Tensor) -> Tensor:
    leaf = stack.embed(given).detach().requires_grad_()
    stack.memory.clear()
    hidden = leaf * 1
    for layer in stack.layers:
        hidden = layer(hidden)
        if stack.written_over:
            hidden = torch.cat([hidden[:, :1] + 1, hidden[:, 1:]], 1)
    values = of_stack(stack.head(hidden))
    return torch.stack([torch.autograd.grad(value, leaf, retain_graph=True)[0] for value in values])


@pytest.mark.parametrize(
    ("options", "blocks"), [({}, 3), ({"leak": True}, 1), ({"in_place": True}, 3), ({"written_over": True}, 1)]
)
def test_blocks_are_proved(options: Mapping[str, bool], blocks: int) -> None:
    stack = Stack(**options)
    given = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1))
    descent = descend(stack, {"pixel_values": given}, of_stack)
    assert descent.blocks == blocks
    assert [one.layer for one in descent] == [2, 1, 0]
    # Autograd alone cannot go through what was written over.
    plain = Stack(**{**options, "in_place": False})
    torch.testing.assert_close(descent.embedding_gradients, by_autograd(plain, given))


def test_a_descent_that_is_dropped_lets_go_at_once() -> None:
    descent = descend(llama(), BY_FAMILY["Llama"].inputs(), three_targets)
    held = weakref.ref(descent._tape.events[0])
    next(iter(descent))
    gc.disable()
    try:
        del descent
        assert held() is None
    finally:
        gc.enable()


def test_a_block_that_draws_random_numbers_is_refused() -> None:
    descent = descend(Stack(noisy=True), {"pixel_values": torch.ones(1, 4, 5)}, of_stack)
    with pytest.raises(attlas.CaptureError, match="wanted the same numbers from the same input in two runs"):
        list(descent)


# ---- bad input


def test_what_cannot_be_done_is_refused() -> None:
    model, inputs = llama(), BY_FAMILY["Llama"].inputs()
    cases: list[tuple[Any, Any, Any, type[Exception], str]] = [
        (model, inputs, lambda output: output.logits[0, -1, 3], attlas.ArgumentError, "one number a target"),
        (model, inputs, lambda output: 3.0, attlas.ArgumentError, "objective.*got a float"),
        (model, inputs, lambda output: output.logits[0, -1, :0], attlas.ArgumentError, "one number a target"),
        (model, inputs, lambda output: output.logits[0, -1, :2].detach(), attlas.ArgumentError, "gradient"),
        (model, {**inputs, "use_cache": True}, three_targets, attlas.ArgumentError, "use_cache"),
        ("model", inputs, three_targets, attlas.ArgumentError, "torch.nn.Module"),
        (BY_FAMILY["FNet"].build(), inputs, three_targets, attlas.CaptureError, "made no attention call"),
        (BY_FAMILY["DeBERTa-v2"].build(), inputs, three_targets, attlas.UnsupportedModelError, "code of its own"),
        (
            BY_FAMILY["SigLIP"].build(),
            BY_FAMILY["SigLIP"].inputs(),
            lambda output: output.image_embeds[0, :2],
            attlas.UnsupportedModelError,
            "MultiheadAttention",
        ),
    ]
    for given, those, objective, error, message in cases:
        with pytest.raises(error, match=message):
            descend(given, those, objective)


@pytest.mark.parametrize("family", ["BERT", "BART"])
def test_a_model_that_drops_numbers_is_refused(family: str) -> None:
    tiny = BY_FAMILY[family]
    with pytest.raises(attlas.UnsupportedModelError, match=r"call model\.eval\(\) first"):
        descend(tiny.build().train(), tiny.inputs(), three_targets)


def test_a_quantised_model_is_refused() -> None:
    model: Any = llama()
    linear = model.model.layers[0].mlp.up_proj
    weight = linear.weight.detach().mul(10).to(torch.int8)
    del linear.weight
    linear.register_buffer("weight", weight)
    with pytest.raises(attlas.UnsupportedModelError, match=r"quantised one \(model\.layers\.0\.mlp\.up_proj\)"):
        descend(model, BY_FAMILY["Llama"].inputs(), three_targets)


def test_a_model_made_in_inference_mode_is_refused() -> None:
    with torch.inference_mode():
        model = llama()
    with pytest.raises(attlas.UnsupportedModelError, match="inference mode"):
        descend(model, BY_FAMILY["Llama"].inputs(), three_targets)


def test_an_ablated_model_is_refused() -> None:
    model = llama()
    with attlas.ablate(model, [(0, 0)]):
        with pytest.raises(attlas.ArgumentError, match="ablate"):
            descend(model, BY_FAMILY["Llama"].inputs(), three_targets)
        model(**BY_FAMILY["Llama"].inputs())


def test_a_descent_goes_down_once_and_knows_its_end() -> None:
    descent = descend(llama(), BY_FAMILY["Llama"].inputs(), three_targets)
    way = iter(descent)
    next(way)
    with pytest.raises(attlas.CaptureError, match="has not arrived"):
        _ = descent.embedding_gradients
    with pytest.raises(attlas.CaptureError, match="gone down once"):
        iter(descent)
    assert len(list(way)) == 1
    assert descent.embedding_gradients.shape == (3, 1, 19, 32)


def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    list(descend(llama(3), BY_FAMILY["Llama"].inputs(), three_targets, progress=lambda *news: told.append(news)))
    assert told == [(1, 3, "going down"), (2, 3, "going down"), (3, 3, "going down")]
