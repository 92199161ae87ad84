"""What a capture keeps, restores, refuses and leaves alone."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

import attlas
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}


@pytest.fixture(scope="module")
def llama() -> Any:
    return BY_FAMILY["Llama"].build()


@pytest.fixture
def inputs() -> dict[str, Tensor]:
    return BY_FAMILY["Llama"].inputs(batch=2)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def globals_of_transformers() -> tuple[object, ...]:
    return (
        AttentionInterface.get_interface,
        dict(AttentionInterface._global_mapping),
        dict(AttentionMaskInterface._global_mapping),
    )


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


# ---- what it gives


def test_layers_names_and_shapes(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama) as cap:
        run(llama, **inputs)
    assert cap.layers == [0, 1]
    assert len(cap) == 2
    assert cap.names == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    assert [tuple(A.shape) for A in cap] == [(2, 4, 19, 19)] * 2
    assert cap[-1] is cap[1]
    assert cap["model.layers.1.self_attn"] is cap[1]
    assert cap[0].key.shape[1] == 2, "keys stay un-repeated"
    assert not cap.unrouted
    assert "2 layers" in repr(cap)


def test_it_can_be_used_while_it_fills(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama) as cap:
        assert len(cap) == 0
        assert "empty" in repr(cap)
        run(llama, **inputs)
        assert len(cap) == 2
        cap[1].received()


def test_chosen_layers_and_heads_are_those_of_the_whole(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama) as whole:
        run(llama, **inputs)
    with attlas.capture(llama, layers=[1], heads=[3, 0]) as part:
        run(llama, **inputs)
    assert part.layers == [1]
    assert torch.equal(part[1].to_dense(), whole[1].to_dense()[:, [3, 0]])
    with attlas.capture(llama, layers=["model.layers.0.self_attn"], heads=[2, 3]) as part:
        run(llama, **inputs)
    assert part.layers == [0]
    assert part[0].key.shape[1] == 1, "a whole group of heads still shares its keys"
    assert torch.equal(part[0].to_dense(), whole[0].to_dense()[:, 2:])
    assert max(part.verify(None).values()) < 1e-5


def test_values_and_output_only_when_asked_for(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama, values=True, output=True) as cap:
        run(llama, **inputs)
    values, output = cap.values(0), cap.output(0)
    assert values.shape == (2, 2, 19, 8)
    assert output.shape == (2, 4, 19, 8)
    torch.testing.assert_close(cap[0] @ values.repeat_interleave(2, 1), output)
    with attlas.capture(llama) as cap:
        run(llama, **inputs)
    with pytest.raises(attlas.CaptureError, match="values=True"):
        cap.values(0)


def test_a_narrower_dtype_is_as_exact_as_it_says(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama, dtype=torch.bfloat16) as cap:
        run(llama, **inputs)
    assert cap[0].dtype == torch.bfloat16
    worst = max(cap.verify().values())
    assert 1e-4 < worst < 0.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_models_of_every_dtype(dtype: torch.dtype, kernel: str) -> None:
    tiny = BY_FAMILY["Mistral"]
    model: Any = tiny.build().to(dtype)
    model.set_attn_implementation(kernel)
    plain = run(model, **tiny.inputs())
    with attlas.capture(model) as cap:
        assert torch.equal(run(model, **tiny.inputs()), plain)
    # transformers' eager functions take the softmax in float32, also in a float64 model.
    limit = {torch.bfloat16: 0.2, torch.float16: 0.03, torch.float64: 1e-12 if kernel == "sdpa" else 1e-6}[dtype]
    assert max(cap.verify(None).values()) < limit


def test_disk_holds_the_tensors_and_nothing_is_left_behind(
    llama: Any, inputs: dict[str, Tensor], tmp_path: Path
) -> None:
    with attlas.capture(llama) as memory:
        run(llama, **inputs)
    folder = tmp_path / "scratch"
    with attlas.capture(llama, disk=folder) as cap:
        run(llama, **inputs)
    assert list(folder.iterdir()) == []
    assert torch.equal(cap[1].to_dense(), memory[1].to_dense())


def test_a_folder_that_cannot_be_made_is_a_store_error(llama: Any, inputs: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(attlas.StoreError, match="disk"), attlas.capture(llama, disk=tmp_path / "file"):
        run(llama, **inputs)


def test_progress_counts_layers(llama: Any, inputs: dict[str, Tensor]) -> None:
    told: list[tuple[int, str]] = []
    with attlas.capture(llama, progress=lambda done, name: told.append((done, name))):
        run(llama, **inputs)
    assert told == [(1, "model.layers.0.self_attn"), (2, "model.layers.1.self_attn")]


def test_the_kernels_log_sum_exp_is_kept(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama) as cap:
        run(llama, **inputs)
    [layer] = cap.stored_layers()[0]
    assert layer.lse is not None
    scores = (cap[0].query.double() @ cap[0].key.double().repeat_interleave(2, 1).mT) * cap[0].scale
    exact = scores.masked_fill(~torch.ones(19, 19, dtype=torch.bool).tril(), -torch.inf).logsumexp(-1)
    torch.testing.assert_close(layer.lse.double(), exact, rtol=0, atol=1e-4)


def test_rows_that_see_nothing_are_zero(llama: Any, inputs: dict[str, Tensor]) -> None:
    mask = torch.ones(2, 19, dtype=torch.long)
    mask[0, :5] = 0
    for kernel in ("sdpa", "eager"):
        llama.set_attn_implementation(kernel)
        with attlas.capture(llama) as cap:
            run(llama, **inputs, attention_mask=mask)
        A = cap[0]
        assert not bool(A.valid_rows[0, :, :5].any())
        assert float(A.to_dense()[0, :, :5].abs().max()) == 0
        assert float(A.received()[0, :, :5].abs().max()) == 0
    llama.set_attn_implementation("sdpa")


# ---- repeated calls


def test_a_second_document_is_a_record_of_its_own(llama: Any, inputs: dict[str, Tensor]) -> None:
    with attlas.capture(llama) as cap:
        run(llama, **inputs)
        run(llama, input_ids=inputs["input_ids"][:1, :7])
    assert [tuple(A.shape) for A in cap.calls(0)] == [(2, 4, 19, 19), (1, 4, 7, 7)]
    assert tuple(cap[0].shape) == (1, 4, 7, 7)


def test_the_same_document_twice_is_not_stitched() -> None:
    tiny = BY_FAMILY["BERT"]
    model = tiny.build()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(**tiny.inputs())
        model(**tiny.inputs())
    assert len(cap.calls(0)) == 2
    assert torch.equal(cap.calls(0)[0].to_dense(), cap.calls(0)[1].to_dense())


def test_generation_is_one_matrix(llama: Any, inputs: dict[str, Tensor]) -> None:
    mask = torch.ones_like(inputs["input_ids"])
    mask[1, :6] = 0
    with torch.no_grad(), attlas.capture(llama) as cap:
        made = llama.generate(**inputs, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert made.shape == (2, 27)
    assert [len(cap.calls(layer)) for layer in cap.layers] == [1, 1]
    assert tuple(cap[0].shape) == (2, 4, 26, 26)
    assert max(cap.verify(None).values()) < 1e-5


@pytest.mark.parametrize("family", ["T5", "BART"])
def test_encoder_decoder_generation_is_one_matrix_each(family: str) -> None:
    tiny = BY_FAMILY[family]
    model: Any = tiny.build()
    inputs = tiny.inputs(batch=2)["input_ids"]
    mask = torch.ones_like(inputs)
    mask[0, -5:] = 0
    with torch.no_grad(), attlas.capture(model) as cap:
        model.generate(inputs, attention_mask=mask, max_new_tokens=7, do_sample=False, num_beams=1, eos_token_id=None)
    shapes = {name: tuple(A.shape) for name, A in zip(cap.names, cap, strict=True)}
    cross = [shape for name, shape in shapes.items() if "Enc" in name or "encoder_attn" in name]
    assert cross == [(2, 4, 7, 19)] * 2
    assert all(len(cap.calls(layer)) == 1 for layer in cap.layers)
    assert max(cap.verify(None).values()) < 1e-4


def test_beam_search_verifies_though_beams_are_reordered(llama: Any, inputs: dict[str, Tensor]) -> None:
    with torch.no_grad(), attlas.capture(llama) as cap:
        llama.generate(**inputs, max_new_tokens=6, num_beams=3, do_sample=False, eos_token_id=None)
    assert max(cap.verify(None).values()) < 1e-5


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma 3"])
def test_caches_of_fixed_size_are_stitched_too(family: str) -> None:
    """A static cache hands over the same memory again and again, longer than what is written in it."""
    tiny = BY_FAMILY[family]
    model: Any = tiny.build()
    inputs = tiny.inputs(batch=2)
    with torch.no_grad(), attlas.capture(model) as cap:
        made = model.generate(
            **inputs, max_new_tokens=8, do_sample=False, eos_token_id=None, cache_implementation="static",
            disable_compile=True,
        )  # fmt: skip
    assert max(cap.verify(None).values()) < 1e-5
    with torch.no_grad(), attlas.capture(model) as whole:
        model(made[:, :-1])
    for layer in cap.layers:
        assert len(cap.calls(layer)) == 1, cap.calls(layer)
        torch.testing.assert_close(cap[layer].to_dense(), whole[layer].to_dense(), rtol=0, atol=1e-4)


def test_a_module_that_runs_twice_is_two_layers() -> None:
    tiny = BY_FAMILY["ALBERT"]
    model = tiny.build()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(**tiny.inputs())
    assert len(cap) == 2
    assert cap.names[1].endswith("(turn 2)")
    assert not torch.equal(cap[0].to_dense(), cap[1].to_dense())


def test_packed_sequences_keep_their_predicate(llama: Any) -> None:
    ids = torch.randint(5, 90, (1, 20), generator=torch.Generator().manual_seed(0))
    positions = torch.cat([torch.arange(8), torch.arange(12)])[None]
    with attlas.capture(llama) as cap:
        run(llama, input_ids=ids, position_ids=positions, use_cache=False)
    A = cap[0]
    assert callable(A.visibility.mask)
    assert float(A.to_dense()[0, :, 8:, :8].abs().max()) == 0
    assert cap.verify(None)[0] < 1e-5


def test_the_callers_own_four_dimensional_mask(llama: Any, inputs: dict[str, Tensor]) -> None:
    seen = torch.rand(2, 1, 19, 19, generator=torch.Generator().manual_seed(0)) > 0.5
    seen |= torch.eye(19, dtype=torch.bool)
    with attlas.capture(llama) as cap:
        run(llama, **inputs, attention_mask=seen)
    assert torch.equal((cap[0].to_dense() > 0).any(1, keepdim=True), seen)


def test_inference_mode(llama: Any, inputs: dict[str, Tensor]) -> None:
    with torch.inference_mode(), attlas.capture(llama) as cap:
        llama(**inputs, attention_mask=torch.ones(2, 19).index_fill(1, torch.tensor([0]), 0))
    assert max(cap.verify().values()) < 1e-5


def test_gradients_still_flow(llama: Any, inputs: dict[str, Tensor]) -> None:
    gradients = []
    for captured in (False, True):
        llama.zero_grad()
        if captured:
            with attlas.capture(llama) as cap:
                llama(**inputs).logits.sum().backward()
            assert not cap[0].query.requires_grad
        else:
            llama(**inputs).logits.sum().backward()
        gradients.append(llama.model.layers[0].self_attn.q_proj.weight.grad.clone())
    llama.zero_grad()
    assert torch.equal(*gradients)


# ---- what it restores


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_everything_is_restored_also_after_an_exception(
    llama: Any, inputs: dict[str, Tensor], error: type[BaseException]
) -> None:
    before, count = globals_of_transformers(), hooks(llama)
    with pytest.raises(error, match="mine"), attlas.capture(llama):
        fail_after(llama, error("mine"), **inputs)
    assert globals_of_transformers() == before
    assert hooks(llama) == count


def test_an_exception_inside_of_the_model_is_not_masked(llama: Any, inputs: dict[str, Tensor]) -> None:
    before = globals_of_transformers()

    def fail(*_: object) -> None:
        raise ZeroDivisionError("inside")

    handle = llama.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError, match="inside"), attlas.capture(llama):
        run(llama, **inputs)
    handle.remove()
    assert globals_of_transformers() == before


def test_a_model_that_failed_once_inside_of_a_capture_can_run_again(llama: Any, inputs: dict[str, Tensor]) -> None:
    handle = llama.model.layers[1].mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with attlas.capture(llama) as cap:
        with pytest.raises(ZeroDivisionError):
            run(llama, **inputs)
        handle.remove()
        run(llama, **inputs)
    assert cap.names == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    assert max(cap.verify().values()) < 1e-5


def test_what_someone_else_registers_meanwhile_stays(llama: Any, inputs: dict[str, Tensor]) -> None:
    original = AttentionMaskInterface._global_mapping["sdpa"]

    def theirs(*args: Any, **kwargs: Any) -> Tensor | None:
        return original(*args, **kwargs)

    try:
        with attlas.capture(llama):
            AttentionMaskInterface.register("sdpa", theirs)
            run(llama, **inputs)
        assert AttentionMaskInterface._global_mapping["sdpa"] is theirs
    finally:
        AttentionMaskInterface.register("sdpa", original)


def test_captures_nest_and_each_hears_its_own_model(llama: Any, inputs: dict[str, Tensor]) -> None:
    other = BY_FAMILY["GPT-2"].build()
    before = globals_of_transformers()
    with attlas.capture(llama) as outer:
        with attlas.capture(other) as inner:
            run(llama, **inputs)
            run(other, **inputs)
        with attlas.capture(llama) as again:
            run(llama, **inputs)
    assert [len(cap) for cap in (outer, inner, again)] == [2, 2, 2]
    assert inner.names[0] == "transformer.h.0.attn"
    assert [len(cap.calls(0)) for cap in (outer, inner, again)] == [2, 1, 1]
    assert globals_of_transformers() == before


def test_threads_do_not_disturb_one_another(llama: Any, inputs: dict[str, Tensor]) -> None:
    plain = run(llama, **inputs)
    found: list[object] = []
    start = threading.Barrier(4)

    def bystander() -> None:
        start.wait()
        found.extend(torch.equal(run(llama, **inputs), plain) for _ in range(20))

    def observer() -> None:
        start.wait()
        for _ in range(10):
            with attlas.capture(llama) as cap:
                found.append(torch.equal(run(llama, **inputs), plain))
            found.append([len(cap.calls(i)) for i in cap.layers] == [1, 1])

    threads = [threading.Thread(target=target) for target in (bystander, bystander, observer, observer)]
    before, count = globals_of_transformers(), hooks(llama)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert all(found)
    assert globals_of_transformers() == before
    assert hooks(llama) == count


# ---- what it refuses


class HandMade(nn.Module):
    """Attention that nobody can hear."""

    def __init__(self, name_says_so: bool) -> None:
        super().__init__()
        self.inner = (OwnAttention if name_says_so else Mixer)()

    def forward(self, x: Tensor) -> Tensor:
        return scaled_dot_product_attention(x, x, x) + self.inner(x)


class OwnAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.mT).exp() @ x


class Mixer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.mT).softmax(-1) @ x


@pytest.mark.parametrize("name_says_so", [True, False], ids=["by its name", "by its softmax"])
def test_a_layer_that_cannot_be_heard_is_named_never_a_hole(name_says_so: bool) -> None:
    model, x = HandMade(name_says_so), torch.randn(1, 2, 9, 4)
    with pytest.raises(attlas.UnsupportedModelError, match=r"^inner: "), attlas.capture(model):
        model(x)
    with attlas.capture(model, unrouted="report") as cap:
        model(x)
    assert list(cap.unrouted) == ["inner"]
    assert cap.verify(None)[0] < 1e-5


def test_attention_that_is_not_what_it_is_called_with_is_refused(
    registered: Callable[..., None], inputs: dict[str, Tensor]
) -> None:
    """A registered function may do anything; what it gives must be the softmax of what it got."""

    def strange(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        weights = (query @ key.repeat_interleave(2, 1).mT * 0.3).tril().softmax(-1)
        return (weights @ value.repeat_interleave(2, 1)).transpose(1, 2).contiguous(), None

    registered("strange", strange)
    model: Any = BY_FAMILY["Llama"].build()
    model.set_attn_implementation("strange")
    with pytest.raises(attlas.UnsupportedModelError, match=r"model\.layers\.0\.self_attn.*not the softmax"):
        with attlas.capture(model):
            run(model, **inputs)


def test_sinks_that_a_kernel_ignores_are_not_invented() -> None:
    """transformers' fused function runs gpt-oss without its sinks; what is captured is what ran."""
    tiny = BY_FAMILY["gpt-oss"]
    model: Any = tiny.build()
    model.config._attn_implementation_internal = "sdpa"
    with attlas.capture(model) as cap:
        run(model, **tiny.inputs())
    assert cap[0].sinks is None
    assert max(cap.verify(None).values()) < 1e-4


def test_training_with_dropout_is_refused(inputs: dict[str, Tensor]) -> None:
    tiny = BY_FAMILY["GPT-2"]
    model = tiny.build().train()
    with pytest.raises(attlas.UnsupportedModelError, match=r"call model\.eval\(\) first"), attlas.capture(model):
        run(model, **inputs)


@pytest.fixture
def registered() -> Iterator[Callable[..., None]]:
    """Register an attention function for one test, with the masks of the fused kernel."""
    names: list[str] = []

    def register(name: str, function: Callable[..., Any]) -> None:
        AttentionInterface.register(name, function)
        AttentionMaskInterface.register(name, AttentionMaskInterface._global_mapping["sdpa"])
        names.append(name)

    yield register
    for name in names:
        del AttentionInterface._global_mapping[name]
        del AttentionMaskInterface._global_mapping[name]


def test_flash_and_flex_kernels_are_refused_with_the_way_out(registered: Callable[..., None]) -> None:
    tiny = BY_FAMILY["Llama"]
    model: Any = tiny.build()
    registered("my_flash", AttentionInterface._global_mapping["sdpa"])
    model.config._attn_implementation_internal = "my_flash"
    with pytest.raises(attlas.UnsupportedModelError, match=r'set_attn_implementation\("sdpa"\)'), attlas.capture(model):
        run(model, **tiny.inputs())


def test_a_registered_function_that_is_an_attention_is_captured(registered: Callable[..., None]) -> None:
    tiny = BY_FAMILY["Llama"]
    model: Any = tiny.build()

    def mine(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
        return AttentionInterface._global_mapping["sdpa"](module, query, key, value, mask, **kwargs)

    registered("mine", mine)
    model.set_attn_implementation("mine")
    with attlas.capture(model) as cap:
        run(model, **tiny.inputs(batch=2))
    assert max(cap.verify(None).values()) < 1e-5
    assert cap[0].visibility.causal


def test_a_capture_that_hears_nothing_is_an_error(llama: Any) -> None:
    with pytest.raises(attlas.CaptureError, match="got none"), attlas.capture(llama):
        pass


def test_a_run_on_another_thread_is_not_heard(llama: Any, inputs: dict[str, Tensor]) -> None:
    with pytest.raises(attlas.CaptureError, match="on its thread"), attlas.capture(llama):
        on_a_thread(llama, **inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": [2]}, "layers: wanted numbers from 0 to 1"),
        ({"layers": ["model.layers.7"]}, "layers: .*model.layers.7"),
        ({"heads": [4]}, "heads: wanted numbers from 0 to 3"),
    ],
)
def test_choices_that_the_model_does_not_have(
    llama: Any, inputs: dict[str, Tensor], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(attlas.ArgumentError, match=message), attlas.capture(llama, **options):
        run(llama, **inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "layers"),
        ({"layers": "all"}, "layers"),
        ({"layers": [-1]}, "layers"),
        ({"layers": [True]}, "layers"),
        ({"heads": []}, "heads"),
        ({"heads": [-1]}, "heads"),
        ({"heads": [1, 1]}, "heads: wanted each head once"),
        ({"dtype": torch.int8}, "dtype"),
        ({"dtype": "float32"}, "dtype"),
        ({"device": "nowhere"}, "device"),
        ({"device": "meta", "disk": "somewhere"}, "device"),
        ({"unrouted": "ignore"}, "unrouted"),
    ],
)
def test_options_that_make_no_sense(llama: Any, options: dict[str, Any], message: str) -> None:
    before = globals_of_transformers()
    with pytest.raises(attlas.ArgumentError, match=message), attlas.capture(llama, **options):
        pytest.fail("the block must not run")
    assert globals_of_transformers() == before


def test_what_is_no_module() -> None:
    name: Any = "llama"
    with pytest.raises(attlas.ArgumentError, match="model: wanted a torch"), attlas.capture(name):
        pytest.fail("the block must not run")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda cap: cap[2], "layer: wanted a captured layer"),
        (lambda cap: cap["nowhere"], "layer: wanted one of"),
        (lambda cap: cap[-3], "layer"),
        (lambda cap: cap.verify(rows=0), "rows"),
        (lambda cap: cap.verify(layers=[9]), "layer"),
    ],
)
def test_questions_that_make_no_sense(
    llama: Any, inputs: dict[str, Tensor], ask: Callable[[attlas.Capture], object], message: str
) -> None:
    with attlas.capture(llama) as cap:
        run(llama, **inputs)
    with pytest.raises(attlas.ArgumentError, match=message):
        ask(cap)


def test_numbers_that_are_not_finite_name_the_layer(inputs: dict[str, Tensor]) -> None:
    model: Any = BY_FAMILY["Llama"].build()
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = torch.inf
    with pytest.raises(attlas.NonFiniteError, match=r"model\.layers\.1\.self_attn: query"), attlas.capture(model):
        run(model, **inputs)
