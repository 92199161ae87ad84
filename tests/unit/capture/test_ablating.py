"""What an ablation does to heads, what it leaves behind, and what it refuses."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

import attlas
from attlas.capture import ablate
from attlas.capture.averaging import Averaging
from attlas.capture.intervention import Ablation, editing
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
WIDTH = 8  # of a head of the tiny Llama


@pytest.fixture(scope="module")
def llama() -> Any:
    return BY_FAMILY["Llama"].build()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return BY_FAMILY["Llama"].inputs(batch=2)


def run(model: Any, **inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def fail_after(model: Any, error: BaseException, **inputs: Any) -> None:
    run(model, **inputs)
    raise error


def on_a_thread(model: Any, **inputs: Any) -> None:
    thread = threading.Thread(target=run, args=(model,), kwargs=inputs)
    thread.start()
    thread.join()


def state(model: nn.Module) -> tuple[object, ...]:
    """Everything that an ablation could leave behind."""
    return (
        AttentionInterface.get_interface,
        dict(AttentionInterface._global_mapping),
        dict(AttentionMaskInterface._global_mapping),
        [(dict(module._forward_hooks), dict(module._forward_pre_hooks)) for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        torch._C._len_torch_function_stack(),
    )


@contextmanager
def sliced(model: Any, layer: int, head: int, put: Tensor | float = 0.0) -> Iterator[None]:
    """Put something in the place of a head by a plain hook on the output projection's input."""

    def hook(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = args[0].clone()
        given[..., head * WIDTH : (head + 1) * WIDTH] = put
        return (given,)

    handle = model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


# ---- what it does


def test_several_heads_in_several_layers_by_number_and_by_name(llama: Any, inputs: dict[str, Tensor]) -> None:
    with sliced(llama, 0, 3), sliced(llama, 1, 0), sliced(llama, 1, 2):
        wanted = run(llama, **inputs)
    with ablate(llama, [(0, 3), ("model.layers.1.self_attn", 0), (1, 2)]):
        assert torch.equal(run(llama, **inputs), wanted)
        assert torch.equal(run(llama, **inputs), wanted), "the second pass is numbered like the first"


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_mean_is_the_mean_over_all_positions_of_the_reference(inputs: dict[str, Tensor], kernel: str) -> None:
    model: Any = BY_FAMILY["Llama"].build()
    model.set_attn_implementation(kernel)
    reference = [{"input_ids": torch.tensor([[5, 6, 7, 8]])}, {"input_ids": torch.tensor([[50, 60, 70, 80, 5, 6]])}]
    outputs = []
    for one in reference:
        with attlas.capture(model, output=True) as cap:
            run(model, **one)
        outputs.append(cap.output(1)[:, 2])
    mean = torch.cat(outputs, dim=1).double().mean((0, 1)).float()
    with sliced(model, 1, 2, mean):
        wanted = run(model, **inputs)
    with ablate(model, [(1, 2)], "mean", reference):
        ablated = run(model, **inputs)
    torch.testing.assert_close(ablated, wanted, rtol=0, atol=1e-5)
    with ablate(model, [(1, 2)]):
        assert not torch.allclose(run(model, **inputs), ablated, atol=1e-3)


def test_the_reference_is_run_without_what_else_is_open(llama: Any, inputs: dict[str, Tensor]) -> None:
    with ablate(llama, [(1, 2)], "mean", inputs):
        wanted = run(llama, **inputs)
    with attlas.capture(llama) as cap, ablate(llama, [(0, 0)]), ablate(llama, [(1, 2)], "mean", inputs):
        both = run(llama, **inputs)
    assert all(len(cap.calls(layer)) == 1 for layer in cap.layers), "the capture heard the reference"
    with ablate(llama, [(1, 2)], "mean", inputs), ablate(llama, [(0, 0)]):
        assert torch.equal(run(llama, **inputs), both)
    assert not torch.equal(both, wanted)


@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}, {"num_beams": 3}])
def test_generating_with_a_cache(llama: Any, inputs: dict[str, Tensor], kind: Any, options: dict[str, Any]) -> None:
    reference = inputs if kind == "mean" else None
    with attlas.capture(llama, output=True) as cap:
        run(llama, **inputs)
    put = cap.output(1)[:, 2].double().mean((0, 1)).float() if kind == "mean" else 0.0
    common = {"max_new_tokens": 7, "do_sample": False, "eos_token_id": None, **options}
    plain = llama.generate(**inputs, **common)
    with sliced(llama, 1, 2, put), sliced(llama, 0, 1, 0.0):
        wanted = llama.generate(**inputs, **common)
    with ablate(llama, [(1, 2)], kind, reference), ablate(llama, [(0, 1)]):
        assert torch.equal(llama.generate(**inputs, **common), wanted)
    assert not torch.equal(plain, wanted)


def test_the_last_one_opened_has_the_last_word(llama: Any, inputs: dict[str, Tensor]) -> None:
    with ablate(llama, [(1, 2)]):
        zero = run(llama, **inputs)
    with ablate(llama, [(1, 2)], "mean", inputs):
        mean = run(llama, **inputs)
        with ablate(llama, [(1, 2)]):
            assert torch.equal(run(llama, **inputs), zero)
        assert torch.equal(run(llama, **inputs), mean)
    with ablate(llama, [(1, 2)]), ablate(llama, [(1, 2)], "mean", inputs):
        assert torch.equal(run(llama, **inputs), mean)


def test_kept_patterns_of_the_last_layer_are_a_zero_ablation(llama: Any, inputs: dict[str, Tensor]) -> None:
    """Nothing attends downstream of the last layer, so there is nothing to keep."""
    with ablate(llama, [(1, 2)]):
        zero = run(llama, **inputs)
    with ablate(llama, [(1, 2)], "pattern"):
        assert torch.equal(run(llama, **inputs), zero)
    with ablate(llama, [(0, 2)]):
        zero = run(llama, **inputs)
    with ablate(llama, [(0, 2)], "pattern"):
        assert not torch.equal(run(llama, **inputs), zero)


def test_the_clean_pass_of_kept_patterns_knows_the_other_ablations(llama: Any, inputs: dict[str, Tensor]) -> None:
    with ablate(llama, [(0, 0)]), attlas.capture(llama) as clean:
        run(llama, **inputs)
    runs = []
    with ablate(llama, [(0, 0)]), ablate(llama, [(0, 2)], "pattern"), attlas.capture(llama) as cap:
        runs.append(run(llama, **inputs))
    with ablate(llama, [(0, 2)], "pattern"), ablate(llama, [(0, 0)]):
        runs.append(run(llama, **inputs))
    assert torch.equal(*runs)
    assert all(torch.equal(cap[layer].to_dense(), clean[layer].to_dense()) for layer in cap.layers)


@pytest.mark.parametrize("kind", ["zero", "pattern"])
def test_shared_layers_are_told_apart_by_their_turn(kind: Any) -> None:
    tiny = BY_FAMILY["ALBERT"]
    model: Any = tiny.build()
    outputs = []
    with torch.no_grad():
        for layer in (0, 1):
            with ablate(model, [(0, 1)], "zero"), ablate(model, [(layer, 2)], kind), attlas.capture(model) as cap:
                outputs.append(model(**tiny.inputs()).last_hidden_state)
            assert len(cap) == 2
    assert not torch.equal(*outputs)


def test_gradients_flow_around_the_ablated_head(llama: Any, inputs: dict[str, Tensor]) -> None:
    weight = llama.model.layers[1].self_attn.q_proj.weight
    with ablate(llama, [(1, 2)]):
        (gradient,) = torch.autograd.grad(llama(**inputs).logits.sum(), weight)
    head = gradient.unflatten(0, (4, WIDTH))
    assert not head[2].any()
    assert head[0].any()
    assert weight.grad is None


def test_an_output_that_is_not_finite_is_taken_away_too(inputs: dict[str, Tensor]) -> None:
    model: Any = BY_FAMILY["Llama"].build()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight[:WIDTH] = torch.nan  # of the first two heads
    assert run(model, **inputs).isnan().any()
    with ablate(model, [(1, 0), (1, 1)]):
        assert run(model, **inputs).isfinite().all()


def test_dropout_and_flash_kernels_are_no_hindrance(inputs: dict[str, Tensor]) -> None:
    model: Any = BY_FAMILY["GPT-2"].build().train()
    torch.manual_seed(0)
    plain = run(model, **inputs)
    torch.manual_seed(0)
    with ablate(model, [(0, 0)]):
        assert not torch.equal(run(model, **inputs), plain)


# ---- PyTorch's own attention


class Plain(nn.Module):
    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        return scaled_dot_product_attention(query, key, value, **options)


@pytest.mark.parametrize("shape", [(7, 8), (3, 7, 8), (2, 4, 7, 8), (2, 3, 4, 7, 8)])
def test_plain_calls_of_every_rank(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
    model, head = Plain().eval(), 0 if len(shape) < 4 else 2
    wanted = model(query, key, value, is_causal=True, scale=0.3)
    if len(shape) < 4:
        wanted = torch.zeros_like(wanted)
    else:
        wanted[..., 2, :, :] = 0
    with ablate(model, [(0, head)]), attlas.capture(model, values=True) as cap:
        assert torch.equal(model(query, key, value, is_causal=True, scale=0.3), wanted)
    assert cap.verify(None)[0] < 1e-5
    with ablate(model, [(0, head)], "pattern"):
        assert torch.equal(model(query, key, value, is_causal=True, scale=0.3), wanted)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_multi_head_attention(need_weights: bool, batched: bool, kind: Any) -> None:
    """A head without effect is one whose columns of the output projection are zero; a mean is part of the bias."""
    torch.manual_seed(0)
    model = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    nn.init.normal_(model.out_proj.bias)
    x = torch.randn(2, 9, 32) if batched else torch.randn(9, 32)
    options = {"need_weights": need_weights, "attn_mask": torch.ones(9, 9, dtype=torch.bool).triu(1)}
    inputs = {"query": x, "key": x, "value": x, **options}
    with torch.no_grad():
        plain, weights = model(**inputs)
        with ablate(model, [(0, 1)], kind, inputs if kind == "mean" else None):
            under, same = model(**inputs)
        with attlas.capture(model) as cap, ablate(model, [(0, 1)], kind, inputs if kind == "mean" else None):
            assert torch.equal(model(**inputs)[0], under)
        assert cap.verify(None)[0] < 1e-5
        weight = model.out_proj.weight.clone()
        if kind == "mean":
            projected = torch.nn.functional.linear(x, *(p[64:] for p in (model.in_proj_weight, model.in_proj_bias)))
            value = projected[..., 8:16]
            mean = (cap[0].to_dense()[:, 1].view(*value.shape[:-1], 9) @ value).flatten(0, -2).mean(0)
            model.out_proj.bias.add_(weight[:, 8:16] @ mean)
        model.out_proj.weight[:, 8:16] = 0
        wanted, _ = model(**inputs)
    torch.testing.assert_close(under, wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(under, plain, atol=1e-3)
    assert need_weights is (same is not None)
    if need_weights:  # of PyTorch's native fast path without an ablation, so equal up to rounding only
        torch.testing.assert_close(same, weights)


def test_kept_patterns_of_multi_head_attention() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    x = torch.randn(2, 9, 32)
    with torch.no_grad():
        with attlas.capture(model) as clean:
            plain = model(x)
        with ablate(model, [(0, 1)], "pattern"), attlas.capture(model) as cap:
            under = model(x)
    assert max(cap.verify(None).values()) < 1e-5
    for layer in (0, 1):
        torch.testing.assert_close(cap[layer].to_dense(), clean[layer].to_dense(), rtol=0, atol=1e-6)
    assert not torch.allclose(plain, under, atol=1e-3)


# ---- what it leaves behind


@pytest.mark.parametrize("kind", ["zero", "mean", "pattern"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_also_after_an_exception(
    llama: Any, inputs: dict[str, Tensor], kind: Any, error: type[BaseException]
) -> None:
    before, plain = state(llama), run(llama, **inputs)
    reference = inputs if kind == "mean" else None
    with ablate(llama, [(0, 1)], kind, reference):
        run(llama, **inputs)
    assert state(llama) == before
    with pytest.raises(error, match="mine"), ablate(llama, [(0, 1)], kind, reference):
        fail_after(llama, error("mine"), **inputs)
    assert state(llama) == before
    assert torch.equal(run(llama, **inputs), plain)


@pytest.mark.parametrize("kind", ["zero", "pattern"])
def test_a_model_that_failed_inside_can_run_again_in_the_same_block(
    llama: Any, inputs: dict[str, Tensor], kind: Any
) -> None:
    before = state(llama)
    with ablate(llama, [(0, 1)], kind):
        wanted = run(llama, **inputs)
    with ablate(llama, [(0, 1)], kind), attlas.capture(llama) as cap:
        handle = llama.model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(llama, **inputs)
        handle.remove()
        assert torch.equal(run(llama, **inputs), wanted)
    assert cap.names == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    assert state(llama) == before


def test_threads_do_not_disturb_one_another(llama: Any, inputs: dict[str, Tensor]) -> None:
    plain = run(llama, **inputs)
    chosen = [[(0, 1)], [(1, 2), (0, 0)]]
    wanted = []
    for heads in chosen:
        with ablate(llama, heads):
            wanted.append(run(llama, **inputs))
    before, found, start = state(llama), [], threading.Barrier(5)

    def bystander() -> None:
        start.wait()
        found.extend(torch.equal(run(llama, **inputs), plain) for _ in range(20))

    def ablater(number: int) -> None:
        start.wait()
        for _ in range(10):
            with ablate(llama, chosen[number]):
                found.append(torch.equal(run(llama, **inputs), wanted[number]))
            found.append(torch.equal(run(llama, **inputs), plain))

    def keeper() -> None:
        start.wait()
        for _ in range(20):
            with ablate(llama, [(1, 1)], "pattern"), attlas.capture(llama) as cap:
                run(llama, **inputs)
            found.append(max(cap.verify().values()) < 1e-5)

    targets: list[Callable[[], None]] = [bystander, bystander, lambda: ablater(0), lambda: ablater(1), keeper]
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 100
    assert all(found)
    assert state(llama) == before


# ---- what it refuses


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([], "heads: wanted a non-empty list"),
        ("all", "heads: wanted a non-empty list"),
        ([3], "heads: wanted a non-empty list of \\(layer, head\\), got 3"),
        ([(1, 2, 3)], "heads: wanted a non-empty list"),
        ([(0, -1)], "heads: wanted layers and heads as numbers from 0"),
        ([(True, 1)], "heads: wanted layers and heads"),
        ([(0, 1.0)], "heads: wanted layers and heads"),
        ([(0, 1), (0, 1)], r"heads: wanted each head once, got \(0, 1\) twice"),
    ],
)
def test_heads_that_make_no_sense(llama: Any, heads: Any, message: str) -> None:
    before = state(llama)
    with pytest.raises(attlas.ArgumentError, match=message), ablate(llama, heads):
        pytest.fail("the block must not run")
    assert state(llama) == before


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(2, 0)], "heads: wanted layers from 0 to 1.*got layer 2"),
        ([("model.layers.7", 0)], "heads: .*got layer 'model.layers.7'"),
        ([(1, 4)], r"heads: wanted head numbers from 0 to 3 in layer 1 \(model\.layers\.1\.self_attn\), got 4"),
    ],
)
def test_heads_that_the_model_does_not_have(llama: Any, inputs: dict[str, Tensor], heads: Any, message: str) -> None:
    with pytest.raises(attlas.ArgumentError, match=message), ablate(llama, heads):
        run(llama, **inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "half"}, 'kind: wanted "zero", "mean" or "pattern"'),
        ({"kind": "mean"}, "reference: wanted a text, or inputs of the model, with kind"),
        ({"reference": {"input_ids": torch.tensor([[5]])}}, "reference: wanted none with kind='zero'"),
        ({"kind": "mean", "reference": "a text"}, "reference: wanted inputs .* for a bare module, got a str"),
        ({"kind": "mean", "reference": []}, "reference"),
        ({"kind": "mean", "reference": 7}, "reference"),
        (
            {
                "kind": "mean",
                "reference": {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.tensor([[0, 1]])},
            },
            "reference: wanted inputs without padding",
        ),
    ],
)
def test_options_that_make_no_sense(llama: Any, options: dict[str, Any], message: str) -> None:
    before = state(llama)
    with pytest.raises(attlas.ArgumentError, match=message), ablate(llama, [(0, 0)], **options):
        pytest.fail("the block must not run")
    assert state(llama) == before


def test_a_reference_that_does_not_run_the_layer() -> None:
    tiny = BY_FAMILY["BART"]
    model: Any = tiny.build()
    averaging = Averaging(model)
    with editing(model, averaging), torch.no_grad():
        model.model.encoder(input_ids=tiny.inputs()["input_ids"])
    ablation = Ablation(model, [{2: [0]}], means=averaging.means())
    with pytest.raises(attlas.CaptureError, match="reference: it did not run"), editing(model, ablation):
        model(**tiny.inputs())


def test_a_block_in_which_nothing_attends(llama: Any, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(attlas.CaptureError, match="nothing was ablated"), ablate(llama, [(0, 0)]):
        pass
    with pytest.raises(attlas.CaptureError, match="on its thread"), ablate(llama, [(0, 0)]):
        on_a_thread(llama, **inputs)


def test_kept_patterns_while_a_cache_is_continued(llama: Any, inputs: dict[str, Tensor]) -> None:
    before = state(llama)
    with pytest.raises(attlas.ArgumentError, match="use_cache=False"), ablate(llama, [(0, 0)], "pattern"):
        llama.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert state(llama) == before
    with ablate(llama, [(0, 0)], "pattern"):
        made = llama.generate(**inputs, max_new_tokens=3, do_sample=False, use_cache=False, eos_token_id=None)
    ids = inputs["input_ids"]
    for _ in range(3):
        with ablate(llama, [(0, 0)], "pattern"):
            ids = torch.cat([ids, run(llama, input_ids=ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(made, ids)


def test_two_that_keep_patterns(llama: Any) -> None:
    with pytest.raises(attlas.ArgumentError, match="give all heads to one"):
        with ablate(llama, [(0, 0)], "pattern"), ablate(llama, [(0, 1)], "pattern"):
            pytest.fail("the block must not run")


def test_kept_patterns_of_a_model_in_training(inputs: dict[str, Tensor]) -> None:
    model = BY_FAMILY["GPT-2"].build().train()
    with pytest.raises(attlas.UnsupportedModelError, match=r"call model\.eval\(\) first"):
        with ablate(model, [(0, 0)], "pattern"):
            run(model, **inputs)


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        longer = torch.cat([x] * self.calls, dim=-2)
        return scaled_dot_product_attention(x, longer, longer)


def test_kept_patterns_of_a_model_that_remembers() -> None:
    model = Remembering().eval()
    with pytest.raises(attlas.UnsupportedModelError, match="remembers something"):
        with ablate(model, [(0, 0)], "pattern"):
            model(torch.randn(1, 2, 5, 4))


def test_a_compiled_part_and_what_is_no_model(llama: Any) -> None:
    part: Any = torch.compile(nn.Linear(2, 2), backend="eager")
    model = nn.Sequential(part)
    with pytest.raises(attlas.UnsupportedModelError, match="0: is compiled"), ablate(model, [(0, 0)]):
        pytest.fail("the block must not run")
    name: Any = "llama"
    with pytest.raises(attlas.ArgumentError, match="model: wanted a torch"), ablate(name, [(0, 0)]):
        pytest.fail("the block must not run")
