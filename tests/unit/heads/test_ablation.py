"""Effects of ablating heads one by one: what a single ablation gives, however they are batched and resumed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyarrow import parquet
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import attlas
from attlas.capture import ablate
from attlas.heads.ablation import LOSS, STATES, AblationEffects, ablation_effects
from attlas.heads.importance import head_importance
from attlas.models.facts import gather_facts
from attlas.testing.tiny_models import TINY_MODELS, VOCABULARY

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
IDS = torch.randint(5, VOCABULARY - 5, (40,), generator=torch.Generator().manual_seed(3)).tolist()
DECODERS = ["Llama", "Gemma 2", "gpt-oss", "GPT-2", "GPT-NeoX", "Phi-3"]


def language_model(family: str) -> attlas.LanguageModel:
    model: Any = BY_FAMILY[family].build()
    return attlas.LanguageModel(model, None, gather_facts(family, model, "0" * 16))


def losses(model: Any, ids: list[int] = IDS) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none").double()


def second_half(logits: Tensor, ids: Tensor) -> float:
    assert logits.shape == (len(ids), VOCABULARY)
    return float(cross_entropy(logits[20:-1], ids[21:]))


@pytest.fixture(scope="module")
def effects() -> AblationEffects:
    return ablation_effects(language_model("Llama"), IDS, task=second_half, resamples=200)


@pytest.mark.parametrize("kind", ["zero", "mean", "pattern"])
@pytest.mark.parametrize("family", DECODERS)
def test_each_is_what_ablating_that_head_alone_does(family: str, kind: Any) -> None:
    lm = language_model(family)
    found = ablation_effects(lm, IDS, kind=kind, resamples=100, importance=False)
    clean = losses(lm.model)
    torch.testing.assert_close(found.clean, clean, rtol=0, atol=1e-5)
    reference = {"input_ids": torch.tensor([IDS])} if kind == "mean" else None
    for pair, change in zip(found.heads, found.change, strict=True):
        with ablate(lm, [pair], kind, reference):
            torch.testing.assert_close(change, losses(lm.model) - clean, rtol=0, atol=2e-5)
    assert len(found) == 8
    assert float(found.change.abs().max()) > 1e-2
    assert found.provenance.settings["resumed"] is True


@pytest.mark.parametrize("options", [{"batch": 2}, {"batch": 100}, {"resume": False}, {"batch": 4, "resume": False}])
@pytest.mark.parametrize("kind", ["zero", "pattern"])
def test_batches_and_resuming_change_nothing(kind: str, options: dict[str, Any]) -> None:
    lm = language_model("Llama")
    usual = ablation_effects(lm, IDS, kind=kind, resamples=100, importance=False)
    other = ablation_effects(lm, IDS, kind=kind, resamples=100, importance=False, **options)
    torch.testing.assert_close(other.change, usual.change, rtol=0, atol=2e-5)
    assert other.provenance.settings["resumed"] is options.get("resume", True)


def test_chosen_heads_come_in_the_order_given(effects: AblationEffects) -> None:
    heads = [(1, 3), (0, 2), (1, 0)]
    found = ablation_effects(language_model("Llama"), IDS, heads, resamples=100)
    assert found.heads == tuple(heads)
    assert found.names == ("model.layers.1.self_attn", "model.layers.0.self_attn", "model.layers.1.self_attn")
    index = [effects.heads.index(pair) for pair in heads]
    torch.testing.assert_close(found.change, effects.change[index], rtol=0, atol=2e-5)
    assert found.importance is not None
    assert effects.importance is not None
    assert found.importance.heads == found.heads
    torch.testing.assert_close(found.importance.signed, effects.importance.signed[index])


def test_a_task_of_ones_own(effects: AblationEffects) -> None:
    assert effects.task is not None
    torch.testing.assert_close(effects.task, effects.over(slice(20, None)).mean, rtol=0, atol=1e-5)
    assert effects.clean_task == pytest.approx(float(effects.clean[20:].mean()), abs=1e-5)


def test_intervals_hold_the_mean_and_narrow_with_the_text(effects: AblationEffects) -> None:
    effect = effects.effect
    torch.testing.assert_close(effect.mean, effects.change.mean(1))
    assert bool((effect.low < effect.mean).all() and (effect.mean < effect.high).all())
    few = effects.over(range(10))
    assert few.mean.shape == (8,)
    torch.testing.assert_close(few.mean, effects.change[:, :10].mean(1))
    with pytest.raises(attlas.ArgumentError, match="positions: wanted at least 8"):
        effects.over([1, 2, 3])


def test_beside_first_order_importance(effects: AblationEffects) -> None:
    importance = head_importance(language_model("Llama"), IDS)
    assert effects.importance is not None
    torch.testing.assert_close(effects.importance.predicted, importance.predicted)
    measured = effects.change.mean(1)
    both = torch.stack([importance.predicted, measured])
    assert effects.correlation["pearson"] == pytest.approx(float(torch.corrcoef(both)[0, 1]))
    ranks = both.argsort(dim=1).argsort(dim=1).double()
    assert effects.correlation["spearman"] == pytest.approx(float(torch.corrcoef(ranks)[0, 1]))


def test_the_table(effects: AblationEffects, tmp_path: Any) -> None:
    rows = effects.rows()
    assert [(row["layer"], row["head"]) for row in rows] == list(effects.heads)
    assert {"module", "measure", "change", "low", "high", "task_change", "predicted_change"} <= set(rows[0])
    table = parquet.read_table(effects.to_parquet(tmp_path / "effects.parquet"))
    assert table.to_pylist() == rows
    assert b'"kind": "zero"' in table.schema.metadata[b"attlas"]
    assert "8 heads" in repr(effects)
    assert effects.measure == LOSS


@pytest.mark.parametrize("family", ["BERT", "T5"])
def test_a_model_that_predicts_no_next_token_shows_how_far_its_states_move(family: str) -> None:
    lm = language_model(family)
    found = ablation_effects(lm, IDS, resamples=100)
    assert found.measure == STATES
    assert found.importance is None
    assert found.correlation == {}
    assert not found.clean.any()
    reader: Any = lm.model if family == "BERT" else lm.model.get_encoder()  # pyright: ignore[reportCallIssue]
    states = []
    with torch.no_grad():
        states.append(reader(input_ids=torch.tensor([IDS])).last_hidden_state[0])
        with ablate(lm, [found.heads[5]]):
            states.append(reader(input_ids=torch.tensor([IDS])).last_hidden_state[0])
    wanted = (states[1] - states[0]).norm(dim=-1) / states[0].norm(dim=-1)
    torch.testing.assert_close(found.change[5], wanted.double(), rtol=1e-3, atol=1e-5)


class Talking(nn.Module):
    """A block that tells the next one something behind the stack's back."""

    def __init__(self, block: nn.Module, board: dict[str, Tensor], writes: bool) -> None:
        super().__init__()
        self.block, self.board, self.writes = block, board, writes
        self.attention_type = block.attention_type if hasattr(block, "attention_type") else "full_attention"

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.writes:
            self.board["mean"] = hidden[:, :1] * 0.5
            return self.block(hidden, *args, **kwargs)
        # A batch's worth of it, or what somebody wrote before.
        said = self.board.pop("mean", torch.zeros_like(hidden[:, :1]))
        return self.block(hidden + said, *args, **kwargs)


def test_where_resuming_is_not_exact_it_is_given_up() -> None:
    lm = language_model("Llama")
    model: Any = lm.model
    board: dict[str, Tensor] = {}
    first, second = model.model.layers
    model.model.layers = nn.ModuleList([Talking(first, board, True), Talking(second, board, False)])
    found = ablation_effects(lm, IDS, batch=5, resamples=100, importance=False)
    assert found.provenance.settings["resumed"] is False
    clean = losses(model)
    with ablate(lm, [(1, 2)]):
        torch.testing.assert_close(found.change[6], losses(model) - clean, rtol=0, atol=2e-5)


class Mixing(nn.Module):
    """A norm over the batch, which lets its rows see one another."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden) * hidden.shape[0]


def test_a_model_whose_rows_see_one_another_is_refused() -> None:
    lm = language_model("Llama")
    model: Any = lm.model
    model.model.layers[1].mlp = Mixing(model.model.layers[1].mlp)
    with pytest.raises(attlas.CaptureError, match="beside copies of itself"):
        ablation_effects(lm, IDS, resamples=100, importance=False)


def test_progress_and_nothing_left_behind() -> None:
    lm = language_model("Llama")
    told: list[tuple[int, int, str]] = []
    before = losses(lm.model)
    ablation_effects(lm, IDS, batch=4, resamples=100, progress=lambda *news: told.append(news))
    assert told == [(3, 8, "ablating heads"), (6, 8, "ablating heads"), (8, 8, "ablating heads")]
    assert torch.equal(losses(lm.model), before)
    for module in lm.model.modules():
        assert not module._forward_hooks
        assert "forward" not in vars(module)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"text": [7] * 8}, attlas.DocumentError, "at least 9 tokens for an interval, got 8"),
        ({"text": [7, 200]}, attlas.ArgumentError, "text: wanted token ids"),
        ({"heads": []}, attlas.ArgumentError, "heads: wanted a non-empty list"),
        ({"heads": [(2, 0)]}, attlas.ArgumentError, r"layers from 0 to 1, heads from 0 to 3, got \(2, 0\)"),
        ({"heads": [(0, 4)]}, attlas.ArgumentError, r"heads from 0 to 3, got \(0, 4\)"),
        ({"heads": [(0, 1), (0, 1)]}, attlas.ArgumentError, "heads: wanted each head once"),
        ({"kind": "half"}, attlas.ArgumentError, "kind: wanted"),
        ({"batch": 1}, attlas.ArgumentError, "batch: wanted a whole number from 2"),
        ({"resamples": 3}, attlas.ArgumentError, "resamples: wanted"),
        ({"reference": "a text"}, attlas.ArgumentError, "reference: wanted none with kind='zero'"),
    ],
)
def test_what_makes_no_sense(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ablation_effects(language_model("Llama"), **{"text": IDS, **options})


def test_attention_that_is_not_heard_is_named_never_a_hole() -> None:
    with pytest.raises(attlas.UnsupportedModelError, match="code of its own"):
        ablation_effects(language_model("BLOOM"), IDS)


@pytest.mark.bundled
def test_heads_that_are_known_to_repeat_do_so_and_kept_patterns_tell_how() -> None:
    """(18, 6) looks for what followed, and (16, 0) tells it where, through its keys alone."""
    lm = attlas.load("smollm2-135m")
    generator = torch.Generator().manual_seed(0)
    part = torch.randint(1000, 40000, (64,), generator=generator).tolist()
    ids = [1, *part, *part]
    effects = {
        kind: ablation_effects(lm, ids, [(18, 6), (16, 0), (18, 1)], kind, importance=False)
        for kind in ("zero", "pattern")
    }
    assert float(effects["zero"].clean[:64].mean()) > 10
    second = {kind: found.over(slice(65, None)) for kind, found in effects.items()}
    assert second["zero"].low[0] > 1
    assert second["zero"].low[1] > 3
    assert abs(second["zero"].mean[2]) < 0.5
    assert second["pattern"].low[0] > 0.2
    assert second["pattern"].mean[1] < 0.1 * second["zero"].mean[1]


@pytest.mark.bundled
def test_a_text_as_reference_and_a_text_as_text() -> None:
    lm = attlas.load("minilm-l6")
    text = "The quick brown fox jumps over the lazy dog, and then it sleeps."
    inputs = {"input_ids": torch.tensor([lm.tokenize(text).ids])}
    states = []
    for reference in (text, inputs, [text, text]):
        with torch.no_grad(), ablate(lm, [(3, 1)], "mean", reference):
            states.append(lm.model(**inputs).last_hidden_state)
    torch.testing.assert_close(states[1], states[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(states[2], states[0], rtol=0, atol=1e-6)
    found = ablation_effects(lm, text, [(3, 1)], "mean", resamples=100)
    with torch.no_grad():
        clean = lm.model(**inputs).last_hidden_state[0]
    moved = (states[0][0] - clean).norm(dim=-1) / clean.norm(dim=-1)
    torch.testing.assert_close(found.change[0], moved.double(), rtol=1e-3, atol=1e-5)
    with pytest.raises(attlas.DocumentError, match="at most 512 tokens"), ablate(lm, [(3, 1)], "mean", "dog " * 600):
        pytest.fail("the block must not run")
