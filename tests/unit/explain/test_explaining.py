"""`attlas.explain`: one run shared by methods and targets, every choice told, and every mistake named."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from torch import nn

import attlas
from attlas import Target
from attlas.errors import ArgumentError, DocumentError, UnsupportedModelError
from attlas.explain import METHODS
from attlas.explain.methods import choices
from explained import TEXT, judge, speaker, translator
from labelled import encoder

FORWARD = ["attention", "rollout", "rollout_null", "flow", "value_norm", "alti"]
GRADIENTS = ["attention_gradient", "chefer", "grad_sam", "suppression", "gradient_input"]
NAMES = (
    "attention rollout rollout_null flow attention_gradient chefer grad_sam value_norm globenc alti suppression "
    "gradient_input integrated_gradients occlusion random recency first_token"
)


def explained(
    lm: attlas.LanguageModel, method: Any = "rollout", target: Any = -1, text: Any = TEXT, **options: Any
) -> Any:
    return attlas.explain(lm, text, method, target, **{"budget": 0, **options})


class Counted:
    """Counts how often a module runs."""

    def __init__(self, module: nn.Module) -> None:
        self.passes = 0
        self._handle = module.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.passes += 1


def dense_rollout(lm: attlas.LanguageModel, ids: list[int]) -> torch.Tensor:
    model: Any = lm.model
    model.set_attn_implementation("eager")
    with torch.no_grad():
        layers = model(input_ids=torch.tensor([ids]), output_attentions=True).attentions
    model.set_attn_implementation("sdpa")
    product = torch.eye(len(ids), dtype=torch.float64)
    for layer in layers:
        product = (0.5 * layer[0].double().mean(0) + 0.5 * torch.eye(len(ids))) @ product
    return product


def test_the_methods_have_the_names_that_people_rely_on() -> None:
    assert list(METHODS) == NAMES.split()
    for name, method in METHODS.items():
        assert method.name == name
        assert method.summary
        assert callable(method.maker)
        assert set(method.as_dict()) == {"name", "summary", "paper", "needs", "signed", "presets"}
        for rules in method.presets.values():
            assert set(rules) <= set(method.settings)


@pytest.mark.parametrize("name", NAMES.split())
def test_the_catalogue_says_what_a_method_needs(name: str) -> None:
    if name == "integrated_gradients":
        pytest.importorskip("captum", reason="captum, an optional extra, is not installed here")
    method = METHODS[name]
    maker = choices(name)[0].make()
    needs = {"attention": (False, False), "values": (True, False), "gradients": (..., True)}.get(method.needs)
    if needs is None:
        assert not hasattr(maker, "needs_gradients")
    else:
        assert getattr(maker, "needs_gradients", None) == needs[1]
        assert needs[0] in (..., getattr(maker, "needs_values", None))
    assert maker.signed == method.signed


def test_rollout_is_the_dense_product() -> None:
    lm = speaker()
    n = len(lm.tokenize(TEXT))
    product = dense_rollout(lm, lm.tokenize(TEXT).ids)
    for found, row in zip(explained(lm, target=[-1, 7]), (n - 1, 7), strict=True):
        # transformers' eager attention takes its softmax in float32: sums of a few tens of terms, in three layers.
        assert torch.allclose(found.scores, product[row], rtol=3 * 2 * n**0.5 * torch.finfo(torch.float32).eps, atol=0)


def test_an_attribution_knows_what_it_is_of() -> None:
    lm = speaker()
    found = explained(lm, "rollout", (4, " capital"), spans="word", residual=0.3)
    document = lm.tokenize(TEXT)
    assert found.tokens == tuple(document.tokens)
    assert found.text == TEXT
    assert (found.method, found.preset, found.name) == ("rollout", "paper", "rollout (paper)")
    assert (found.target.position, found.target.name) == (4, "' capital'")
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([document.ids])).logits[0, 4]
    assert found.value == pytest.approx(float(logits.log_softmax(-1)[found.target.token]), rel=1e-12)
    assert found.settings["residual"] == found.provenance.settings["residual"] == 0.3
    assert found.provenance.fingerprint == "f00d"
    assert found.layers.shape == (3, len(document))
    assert torch.equal(found.layers[0], found.scores)
    assert float(found.span_scores.sum()) == pytest.approx(float(found.scores.sum()), rel=1e-12)
    assert found.faithfulness is None
    assert len(found.rows()) == len(document)
    assert [span.text for span, _ in found.top(2)] == [
        found.spans[i].text for i in found.span_scores.abs().argsort(descending=True)[:2].tolist()
    ]


def test_describe_tells_every_choice() -> None:
    said = explained(speaker(), "chefer", preset="released-bert", target=3).describe().splitlines()
    assert said[0].startswith("chefer (released-bert) of the log-probability of ")
    assert "at position 3" in said[0]
    assert {"normalise rows: yes", "start layer: -1", "own: minimum"} <= set(said)
    assert said[-1] == "faithfulness: not measured"
    pooled = explained(judge(), target=Target.label(1, None), text="the dog").describe()
    assert "logit of fair, pooled over all positions" in pooled
    assert "residual: 0.5" in pooled


@pytest.mark.parametrize("name", [*FORWARD, *GRADIENTS, "occlusion"])
def test_an_attribution_becomes_a_file(name: str, tmp_path: Path) -> None:
    found = explained(speaker(), name, [-1, 4])[1]
    table = pyarrow.parquet.read_table(found.to_parquet(tmp_path / "found.parquet"))
    assert table.column("score").to_pylist() == found.scores.tolist()
    assert table.column("token").to_pylist() == list(found.tokens)
    about = {key.decode(): json.loads(value) for key, value in table.schema.metadata.items()}
    assert about["target"] == {"name": found.target.name, "position": 4, "quantity": "log-probability"}
    assert about["value"] == found.value
    assert set(about["settings"]) == set(found.settings)
    assert set(about["notes"]) == set(found.notes)
    # Notes are of this target alone.
    alone = explained(speaker(), name, 4)
    assert about["notes"].keys() == alone.notes.keys()
    assert max(map(len, found.describe().splitlines())) < 250


def test_targets_and_methods_in_order() -> None:
    lm = speaker()
    found = explained(lm, ["rollout", "recency"], [-1, 5])
    n = len(lm.tokenize(TEXT))
    assert [(one.target.position, one.method) for one in found] == [
        (n - 1, "rollout"), (n - 1, "recency"), (5, "rollout"), (5, "recency"),
    ]  # fmt: skip
    assert isinstance(explained(lm, ["rollout"]), tuple)
    assert isinstance(explained(lm, "rollout", [-1]), tuple)


def test_all_methods_and_targets_share_one_run() -> None:
    lm = speaker()
    counted = Counted(lm.model)
    targets = [-1, (3, " of"), (3, " of", "is"), Target.of(lambda output: output.logits[0, 2].max(), 2)]
    explained(lm, ["attention", "rollout", "rollout_null", "flow"], targets)
    assert counted.passes == 1
    explained(lm, ["rollout", *GRADIENTS], targets)
    assert counted.passes == 2
    explained(lm, ["random", "recency", "first_token"], targets)
    assert counted.passes == 3


@pytest.mark.parametrize("name", [*FORWARD, *GRADIENTS])
def test_together_or_alone_is_the_same(name: str) -> None:
    lm = speaker()
    targets = [-1, (3, " of")]
    together = explained(lm, [*FORWARD, *GRADIENTS], targets)
    alone = explained(lm, name, targets)
    for one, other in zip([one for one in together if one.method == name], alone, strict=True):
        assert torch.allclose(one.scores, other.scores, rtol=1e-9, atol=1e-12)
        assert one.value == pytest.approx(other.value, rel=1e-12)
        assert one.target == other.target
    # And so is one target beside another.
    assert torch.allclose(explained(lm, name, targets[1]).scores, alone[1].scores, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*FORWARD, *GRADIENTS, "globenc"])
def test_every_method_explains_a_class(name: str) -> None:
    lm = judge()
    found = explained(lm, name, [Target.label(2), Target.label(0, None)], "the old dog sees a bird")
    for one in found:
        assert one.scores.shape == (len(one.tokens),)
        assert bool(one.scores.isfinite().all())
        assert bool(one.scores.any())


@pytest.mark.parametrize("name", ["attention", "rollout", *GRADIENTS, "occlusion"])
def test_a_model_with_two_stacks_is_explained_by_what_its_encoder_reads(name: str) -> None:
    lm = translator()
    settings = {"removal": "mask", "neutral": " of"} if name == "occlusion" else {}
    found = explained(lm, name, [-1, (0, "next")], answer=" Rome", **settings)
    for one in found:
        assert len(one.scores) == len(one.tokens) == len(lm.tokenize(TEXT))
        assert one.answer[0] == 2
        assert bool(one.scores.isfinite().all())
        assert bool(one.scores.any())


def test_numbers_of_ones_own_of_a_bare_encoder() -> None:
    lm = encoder()
    target = Target.of(lambda output: output.last_hidden_state[0, 0].norm(), 0, "length")
    rollout, chefer = explained(lm, ["rollout", "chefer"], target, "the dog")
    assert rollout.target.name == chefer.target.name == "length"
    assert float(rollout.scores.sum()) == pytest.approx(1, rel=1e-5)
    with pytest.raises(UnsupportedModelError, match=r"Target\.of"):
        explained(lm, "rollout", -1, "the dog")
    with pytest.raises(UnsupportedModelError, match=r"Target\.of"):
        explained(lm, "chefer", -1, "the dog")


def test_a_text_by_its_ids() -> None:
    lm = speaker()
    by_text, by_ids = explained(lm), explained(lm, text=lm.tokenize(TEXT).ids)
    assert torch.equal(by_text.scores, by_ids.scores)
    assert by_ids.text == TEXT


def test_presets_and_settings_reach_the_methods_that_know_them() -> None:
    lm = speaker()
    own, given = explained(lm, ["chefer:released-vit", "chefer"], preset="released-bert")
    assert (own.preset, given.preset) == ("released-vit", "released-bert")
    assert own.settings["own"] == "zero"
    over = explained(lm, "chefer", preset="released-bert", start_layer=0)
    assert (over.settings["start_layer"], over.settings["normalise_rows"]) == (0, True)
    rollout, attention = explained(lm, ["rollout", "attention"], residual=0.1)
    assert rollout.settings["residual"] == 0.1
    assert "residual" not in attention.settings


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("rolout", {}, "method: wanted one of attention, rollout"),
        ("rolout", {}, "did you mean rollout?"),
        (3, {}, "method: wanted"),
        ([], {}, "method: wanted at least one method, got none"),
        ([3], {}, "method: wanted the name of a method"),
        (["rollout", "rollout"], {}, "method: wanted each method once, got 'rollout' twice"),
        ("rollout", {"preset": "x"}, "preset: wanted one of paper, released for rollout, got 'x'"),
        ("rollout:x", {}, "preset: wanted one of paper, released for rollout, got 'x'"),
        (["rollout", "recency"], {"preset": "paper"}, "preset: wanted none for recency, got 'paper'"),
        ("rollout", {"residul": 0.1}, "residul: wanted a setting of rollout (residual, "),
        ("rollout", {"residul": 0.1}, "did you mean residual?"),
        ("recency", {"residual": 0.1}, "residual: wanted a setting of recency (none), got one that is not known"),
        ("rollout", {"budget": -1}, "budget: wanted a whole number of forward passes, 0 for none, got -1"),
        ("rollout", {"budget": 1.5}, "budget: wanted a whole number of forward passes, 0 for none, got 1.5"),
        ("rollout", {"spans": "phrase"}, "spans: wanted 'token'"),
        ("rollout", {"target": 99}, "target: wanted a position inside of the text"),
    ],
)
def test_mistakes_are_named_before_the_model_runs(method: Any, options: dict[str, Any], message: str) -> None:
    lm = speaker()
    counted = Counted(lm.model)
    with pytest.raises(ArgumentError) as raised:
        explained(lm, method, **options)
    assert message in str(raised.value)
    assert counted.passes == 0


class Packed(nn.Linear):
    """A layer whose weight is kept as integers."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__(plain.in_features, plain.out_features, bias=False)
        self.scale = float(plain.weight.detach().abs().max()) / 127
        packed = (plain.weight.detach() / self.scale).round().to(torch.int8)
        self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return input @ (self.weight.to(input.dtype) * self.scale).T


def test_a_quantised_model_gives_no_gradients() -> None:
    lm = speaker()
    model: Any = lm.model
    layer = model.model.layers[0].mlp
    layer.down_proj = Packed(layer.down_proj)
    assert bool(explained(lm, "rollout").scores.any())
    for name in ("chefer", "gradient_input"):
        with pytest.raises(UnsupportedModelError, match="quantised"):
            explained(lm, name)


def test_faithfulness_is_measured_with_the_budget_that_is_given() -> None:
    lm = speaker()
    found = explained(lm, ["rollout", "occlusion"], spans="word", budget=64, faithfulness={"seed": 3})
    for one in found:
        assert one.faithfulness is not None
        assert one.faithfulness.method == one.name
        assert one.faithfulness.passes <= 2 * 64
        assert one.faithfulness.settings["seed"] == 3
        assert one.describe().splitlines()[-1] == f"faithfulness: {one.faithfulness.summary}"
        assert one.faithfulness.verdict in repr(one)


def test_a_text_too_short_to_measure_says_how_to_explain_it_all_the_same() -> None:
    lm = speaker()
    ids = lm.tokenize(TEXT).ids[:2]
    with pytest.raises(DocumentError, match="to explain it without measuring faithfulness, pass budget=0"):
        explained(lm, text=ids, budget=64)
    assert len(explained(lm, text=ids).scores) == 2


def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    for name in ("rollout", "chefer", "occlusion"):
        told.clear()
        explained(speaker(), name, progress=lambda *call: told.append(call))
        assert told
        assert all(0 <= done <= total for done, total, _ in told)
        assert told[-1][0] == told[-1][1]
