"""Does it matter where attention looks: shuffled and uniform rows, against a reference that is written out."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import attlas
from answering import decoder, encoder
from attlas._intervals import simultaneous
from attlas.capture.prefix import Prefix
from attlas.errors import ArgumentError, CaptureError, UnsupportedModelError
from attlas.explain.faithfulness import variants
from attlas.explain.faithfulness.patterns import PatternTests, pattern_tests
from attlas.explain.targets import Target
from attlas.models.facts import gather_facts
from attlas.testing.classifiers import classifier
from attlas.testing.tiny_models import TINY_MODELS

TEXT = "The old teacher walked slowly to the river after the rain."
SHUFFLES = 8
EXACT: Any = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module")
def lm() -> Any:
    return decoder(dtype=torch.float64)


@pytest.fixture(scope="module")
def tests(lm: Any) -> PatternTests:
    return pattern_tests(lm, TEXT, (-1, " is"), shuffles=SHUFFLES, seed=4)


def orders(n: int) -> Tensor:
    return torch.rand(SHUFFLES, n, generator=torch.Generator().manual_seed(4))


def reference(
    lm: Any, ids: Tensor, row: int, token: int, layer: int, heads: list[int], shuffle: int | None
) -> tuple[float, float]:
    """Put a dense row into the output projection; return the change of the log-probability, and the distance."""
    with attlas.capture(lm.model, values=True) as cap, torch.no_grad():
        clean = lm.model(ids).logits[0, row].log_softmax(-1)
    value = cap.values(layer)[0].double()
    group = cap[layer].shape[1] // len(value)
    dense = cap[layer].to_dense()[0, :, row].double()

    def put(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = args[0].clone()
        for head in heads:
            weights = torch.zeros(len(dense[head]), dtype=torch.float64)
            if shuffle is None:
                weights[: row + 1] = dense[head].sum() / (row + 1)
            else:
                weights[: row + 1] = dense[head, : row + 1][orders(ids.shape[1])[shuffle][: row + 1].argsort()]
            width = value.shape[2]
            given[0, row, head * width : (head + 1) * width] = weights @ value[head // group]
        return (given,)

    handle = lm.model.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(put)
    try:
        with torch.no_grad():
            after = lm.model(ids).logits[0, row].log_softmax(-1)
    finally:
        handle.remove()
    return float(after[token] - clean[token]), float((after.exp() - clean.exp()).abs().sum() / 2)


def test_every_head_and_layer_equals_the_dense_reference(lm: Any, tests: PatternTests) -> None:
    document = lm.tokenize(TEXT)
    ids, row = torch.tensor([document.ids]), len(document) - 1
    token = lm.tokenizer.get_vocab()["is"]
    assert tests.settings["one token a pass"] is True
    assert tests.heads == tuple((layer, head) for layer in range(2) for head in range(4))
    for effects, places in (
        (tests.of_heads, [(layer, [head]) for layer, head in tests.heads]),
        (tests.of_layers, [(layer, [0, 1, 2, 3]) for layer in tests.layers]),
    ):
        for i, (layer, heads) in enumerate(places):
            found = [(effects.uniform[i], effects.uniform_distance[i])]
            found += list(zip(effects.permuted[:, i], effects.permuted_distance[:, i], strict=True))
            for shuffle, (change, distance) in zip([None, *range(SHUFFLES)], found, strict=True):
                wanted = reference(lm, ids, row, token, layer, heads, shuffle)
                assert float(change) == pytest.approx(wanted[0], abs=1e-9)
                assert float(distance) == pytest.approx(wanted[1], abs=1e-9)
    assert float(tests.of_heads.permuted.abs().max()) > 0.01, "attention matters in this model"


def test_the_whole_text_gives_what_its_last_token_gives(
    lm: Any, tests: PatternTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefix, "known", False)
    whole = pattern_tests(lm, TEXT, (-1, " is"), shuffles=SHUFFLES, seed=4)
    assert whole.settings["one token a pass"] is False
    for one, other in ((tests.of_heads, whole.of_heads), (tests.of_layers, whole.of_layers)):
        torch.testing.assert_close(one.permuted, other.permuted, **EXACT)
        torch.testing.assert_close(one.uniform, other.uniform, **EXACT)
        torch.testing.assert_close(one.permuted_distance, other.permuted_distance, **EXACT)
    assert tests.uniform == pytest.approx(whole.uniform, abs=1e-9)


def test_a_cache_that_is_wrong_is_not_believed(lm: Any, tests: PatternTests, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Prefix.run

    def wrong(self: Any, batch: int) -> Any:
        output = original(self, batch)
        return SimpleNamespace(logits=output.logits.roll(1, -1))

    monkeypatch.setattr(Prefix, "run", wrong)
    found = pattern_tests(lm, TEXT, (-1, " is"), shuffles=SHUFFLES, seed=4)
    assert found.settings["one token a pass"] is False
    torch.testing.assert_close(found.of_heads.permuted, tests.of_heads.permuted, **EXACT)


def test_what_cannot_be_reproduced_is_an_error(lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = variants._rows
    monkeypatch.setattr(variants, "_rows", lambda *args: (moved(row) for row in rows(*args)))
    with pytest.raises(CaptureError, match="put in its own place the target moves by"):
        pattern_tests(lm, TEXT, (-1, " is"), shuffles=SHUFFLES)


def moved(row: variants.Row) -> variants.Row:
    return variants.Row(row.layer, row.name, row.weights.roll(1, 1), row.visible)


def test_what_stands_behind_the_target_does_not_matter_to_a_decoder(lm: Any, tests: PatternTests) -> None:
    position = len(lm.tokenize(TEXT)) - 1
    longer = pattern_tests(lm, f"{TEXT} My sister came with me.", (position, " is"), shuffles=SHUFFLES, seed=4)
    assert torch.equal(longer.of_heads.permuted, tests.of_heads.permuted)


def test_intervals_are_over_shuffles_and_hold_for_all_heads(tests: PatternTests) -> None:
    effects = tests.of_heads
    wanted = simultaneous(effects.permuted, seed=4)
    assert torch.equal(effects.interval.low, wanted.low)
    assert torch.equal(effects.matters, (wanted.low > effects.noise) | (wanted.high < -effects.noise))
    torch.testing.assert_close(effects.median, effects.permuted.sort(dim=0).values[3:5].mean(0))


def test_rows_are_of_heads_then_layers_then_the_model(tests: PatternTests, tmp_path: Any) -> None:
    rows = tests.rows()
    assert [(row["layer"], row["head"]) for row in rows] == [*tests.heads, (0, None), (1, None), (None, None)]
    assert rows[5]["permuted"] == float(tests.of_heads.median[5])
    assert rows[-1]["uniform"] == tests.uniform
    assert rows[-1]["permuted"] is None
    assert rows[3]["module"] == "model.layers.0.self_attn"
    assert tests.to_parquet(tmp_path / "patterns.parquet").stat().st_size > 0
    assert f"of {len(tests.heads)} heads" in tests.summary
    assert "the log-probability of 'is' by" in tests.summary.replace("' is'", "'is'")
    assert tests.summary in repr(tests)


def test_encoders_run_whole_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = classifier(encoder(spread=0.3), "sentiment", texts=60, held_out=10).lm
    model: Any = classes.model
    found = pattern_tests(classes, TEXT, Target.label(1), shuffles=SHUFFLES, seed=4, layers=[1])
    assert found.settings["one token a pass"] is False
    assert found.heads == tuple((1, head) for head in range(4))
    ids = torch.tensor([classes.tokenize(TEXT).ids])
    with attlas.capture(model, values=True) as cap, torch.no_grad():
        clean = model(ids).logits[0].double()
    assert found.value == pytest.approx(float(clean[1]), abs=1e-5)
    value = cap.values(1)[0]

    def put(_: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given = args[0].clone()
        given[0, 0, 16:24] = value[2].mean(0)
        return (given,)

    handle = model.bert.encoder.layer[1].attention.output.dense.register_forward_pre_hook(put)
    try:
        with torch.no_grad():
            moved = model(ids).logits[0].double()
    finally:
        handle.remove()
    assert float(found.of_heads.uniform[2]) == pytest.approx(float(moved[1] - clean[1]), abs=1e-5)
    wanted = float((moved.softmax(0) - clean.softmax(0)).abs().sum() / 2)
    assert float(found.of_heads.uniform_distance[2]) == pytest.approx(wanted, abs=1e-6)
    assert "the logit of" in found.summary
    assert "units of the logit" in found.summary


@pytest.mark.parametrize("family", ["Gemma 3", "GPT-2", "gpt-oss", "OPT"])
def test_windows_and_sinks_keep_their_rules(family: str) -> None:
    tiny = next(one for one in TINY_MODELS if one.family == family)
    model: Any = tiny.build()
    lm = attlas.LanguageModel(model, None, gather_facts("tiny", model, "f00d"))
    ids = tiny.inputs(batch=1)["input_ids"][0].tolist()
    found = pattern_tests(lm, ids, (-1, 5), shuffles=SHUFFLES)
    assert found.of_heads.permuted.isfinite().all()
    with attlas.capture(model) as cap, torch.no_grad():
        model(torch.tensor([ids]))
    for layer, row in zip(cap.layers, variants._rows(cap, len(ids) - 1, len(ids)), strict=True):
        dense = cap[layer].to_dense()[0, :, -1]
        assert torch.equal(row.visible, dense > 0)
        for other in (row.uniform(), row.permuted(torch.rand(len(ids)))):
            torch.testing.assert_close(other.sum(1), dense.sum(1), rtol=0, atol=1e-6)
            assert not other[~row.visible].any()


def test_where_all_keys_are_alike_nothing_matters() -> None:
    lm = decoder()
    model: Any = lm.model
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.zero_()
    found = pattern_tests(lm, TEXT, -1, shuffles=SHUFFLES)
    assert not found.of_heads.matters.any()
    assert found.summary.startswith("Cannot tell that it matters where any of 8 heads looks.")
    assert found.target.token is not None, "the model's own prediction was filled in"


def test_a_budget_leaves_shuffles_out_and_is_kept(lm: Any, tests: PatternTests) -> None:
    asked = pattern_tests(lm, TEXT, (-1, " is"), shuffles=12, budget=115)
    assert asked.passes <= 115
    assert SHUFFLES <= asked.settings["shuffles"] < 12
    with pytest.raises(ArgumentError, match=r"budget: wanted at least (\d+) forward passes, 8 shuffles") as caught:
        pattern_tests(lm, TEXT, (-1, " is"), budget=20)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert pattern_tests(lm, TEXT, (-1, " is"), budget=least).passes == least
    assert tests.passes == least


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"shuffles": 7}, "shuffles: wanted a whole number from 8, for an interval, got 7"),
        ({"layers": [0, 9]}, "layers: wanted layers from 0 to 1, got 9"),
        ({"layers": []}, "layers: wanted at least one, got none"),
        ({"target": [-1, -2]}, "target: wanted one target, got 2"),
        ({"resamples": 5}, "resamples: wanted a whole number from 100"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(lm: Any, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ArgumentError, match=complaint):
        pattern_tests(lm, TEXT, **options)


def test_two_stacks_and_targets_without_a_row_are_refused(lm: Any) -> None:
    t5 = next(one for one in TINY_MODELS if one.family == "T5")
    model: Any = t5.build()
    both = attlas.LanguageModel(model, None, gather_facts("tiny", model, "f00d"))
    with pytest.raises(UnsupportedModelError, match="wanted a model of one stack"):
        pattern_tests(both, [5, 6, 7], (0, 3))
    own = Target.of(lambda output: output.logits.sum(), -1)
    with pytest.raises(UnsupportedModelError, match="got a function of the output"):
        pattern_tests(lm, TEXT, own)
    classes = classifier(encoder(), "sentiment", texts=40, held_out=10).lm
    with pytest.raises(UnsupportedModelError, match="got one pooled over all positions"):
        pattern_tests(classes, TEXT, Target.label(0, None))
