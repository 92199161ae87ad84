"""`attlas.profile`: every number against dense float64 truth, plans that were run, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface, AttentionMaskInterface

import attlas
from attlas.capture.asking import document_of
from attlas.models.facts import gather_facts
from attlas.patterns import Full, Pattern, SlidingWindow
from attlas.planning.costs import CostModel
from attlas.planning.held_out import KEY, check_held_out
from attlas.planning.profiling import _turns, profile
from attlas.testing.tiny_models import TINY_MODELS
from far_looking import FAR, NEAR, far_looking, periodic

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}
PATTERNS = (SlidingWindow(3, sinks=1), SlidingWindow(9))
TEXTS = [torch.randint(5, 91, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (31, 23, 40)]


def language_model(family: str, dtype: torch.dtype = torch.float64, positions: int = 64) -> attlas.LanguageModel:
    tiny = BY_FAMILY[family]
    if positions != 64:
        tiny = replace(tiny, options={**tiny.options, "max_position_embeddings": positions})
    model: Any = tiny.build().to(dtype)
    return attlas.LanguageModel(model, None, gather_facts(family, model, "0" * 16))


@pytest.fixture
def dense() -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """Make models compute their attention densely, in the open, and collect matrices, values and outputs."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []

    def attention(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Any:
        key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
        hidden = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool).triu(1)
        A = (query @ key.mT * options["scaling"]).masked_fill(hidden, -torch.inf).softmax(-1)
        out = A @ value
        found.append((A, value, out))
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("dense", attention)
    AttentionMaskInterface.register("dense", AttentionMaskInterface._global_mapping["sdpa"])
    yield found
    del AttentionInterface._global_mapping["dense"]
    del AttentionMaskInterface._global_mapping["dense"]


def kept(pattern: SlidingWindow, n: int) -> Tensor:
    ahead = torch.arange(n).view(-1, 1) - torch.arange(n)
    return (ahead >= 0) & ((ahead < pattern.width) | (torch.arange(n) < pattern.sinks))


def test_every_number_is_that_of_dense_attention(dense: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    lm = language_model("GPT-2")  # whose every step keeps float64
    found = profile(lm, TEXTS, PATTERNS, aims=()).effects
    assert [(head.layer, head.head) for head in found.heads] == [(layer, h) for layer in range(2) for h in range(4)]
    model: Any = lm.model
    model.set_attn_implementation("dense")
    for t, ids in enumerate(TEXTS):
        dense.clear()
        given = torch.tensor([ids])
        logits = model(input_ids=given, use_cache=False).logits
        loss = cross_entropy(logits[0, :-1], given[0, 1:])
        assert found.texts[t].loss == pytest.approx(loss.item())
        slopes = torch.autograd.grad(loss, [out for _, _, out in dense])
        for p, pattern in enumerate(PATTERNS):
            here = {name: table[t, :, p].view(2, 4) for name, table in found.values.items()}
            for layer, ((A, value, out), slope) in enumerate(zip(dense, slopes, strict=True)):
                keep = kept(pattern, len(ids))
                dropped = (A * ~keep).sum(-1)[0].detach()
                instead = (A * keep) / (A * keep).sum(-1, keepdim=True)
                change = (instead @ value - out)[0].detach()
                along = (change * slope[0]).sum(-1)
                wanted = {
                    "dropped_mean": dropped.mean(-1),
                    "dropped_worst": dropped.amax(-1),
                    "variation_mean": dropped.mean(-1),
                    "error": change.flatten(1).norm(dim=-1) / out[0].detach().flatten(1).norm(dim=-1),
                    "first": along.sum(-1),
                    "second": (len(ids) - 1) / 2 * along.square().sum(-1),
                }
                for name, numbers in wanted.items():
                    torch.testing.assert_close(here[name][layer], numbers, msg=lambda m, n=name: f"{n}: {m}")
    torch.testing.assert_close(found.loss, found.values["second"] + found.values["first"].mean(0).clamp(min=0))


def pairs_cost(*_: Any, **__: Any) -> CostModel:
    """Return a model in which time is the number of pairs, whatever the machine does meanwhile."""
    return CostModel(0, 0, {"full": 1}, 0, 0, "nowhere", 1, "2", "float32", 8, True, ())


class KeptCost(CostModel):
    """A model in which time is the number of keys that a window keeps, whatever the machine does meanwhile."""

    def of(self, pattern: Pattern, n: int, *, causal: bool) -> float:
        del causal
        return float(pattern.width + pattern.sinks if isinstance(pattern, SlidingWindow) else n)


def test_the_head_that_looks_far_back_stays_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    # Timed, so few tokens cost much the same under any window, and which is cheaper is a matter of luck.
    counted = KeptCost(**{field.name: getattr(pairs_cost(), field.name) for field in fields(CostModel)})
    monkeypatch.setattr("attlas.planning.profiling.measure_costs", lambda *_, **__: counted)
    lm = far_looking()
    found = profile(lm, [periodic(200, seed) for seed in range(3)], [SlidingWindow(8, sinks=1), SlidingWindow(100)])
    chosen = found.choose(error=0.01)
    assert chosen.patterns[0, NEAR] == SlidingWindow(8, sinks=1)
    assert chosen.patterns.get((0, FAR)) != SlidingWindow(8, sinks=1)
    lost = found.effects.mean("dropped_mean")
    assert lost[FAR, 0] > 0.5
    assert lost[NEAR, 0] < 0.01
    # Together in one group, what one head needs holds for both.
    assert found.effects.heads[FAR].kv_head != found.effects.heads[NEAR].kv_head
    only = profile(lm, [periodic(200)], [SlidingWindow(8)])
    assert only.choose(error=0.01).patterns == {(0, NEAR): SlidingWindow(8)}


def test_plans_that_were_run_say_what_they_really_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attlas.planning.profiling.measure_costs", pairs_cost)
    lm = language_model("Llama", torch.float32, positions=512)
    texts = [torch.randint(5, 91, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (400, 300)]
    found = profile(lm, texts, [SlidingWindow(8, sinks=1), SlidingWindow(64)], aims=(0.2, 0.1, 0.4))
    assert 1 <= len(found.checks) <= 3
    for check in found.checks:
        # The plan can be chosen again, and does the same again.
        again = found.within(check.predicted)
        assert again.predicted == check.predicted
        assert (again.cost, again.full) == (check.cost, check.full)
        assert check.texts == (0, 1)
        assert check.there == pytest.approx(check.predicted)
        for one, rise in zip(check.texts, check.rises, strict=True):
            given = torch.tensor([texts[one]])
            with found.plan_of(again).applied(lm), torch.no_grad():
                loss = cross_entropy(lm.model(input_ids=given).logits[0, :-1], given[0, 1:])
            assert float(loss) - found.effects.texts[one].loss == pytest.approx(rise, abs=1e-5)


def test_all_texts_have_their_turn() -> None:
    assert _turns(4, 3) == [[0, 1], [2, 3], [0, 1]]
    assert _turns(3, 3) == [[0, 1], [0, 2], [1, 2]]
    assert _turns(1, 2) == [[0], [0]]


def test_spread_between_texts_is_kept() -> None:
    found = profile(language_model("Llama"), TEXTS, PATTERNS, aims=()).effects
    assert found.loss.shape == (3, 8, 2)
    torch.testing.assert_close(found.mean("error"), found.values["error"].mean(0))
    torch.testing.assert_close(found.worst("error"), found.values["error"].amax(0))
    assert bool((found.worst("error") > found.mean("error")).all())
    rows = found.summary()
    assert len(rows) == 16
    assert rows[0]["error"] == pytest.approx(float(found.mean("error")[0, 0]))
    assert rows[0]["error_worst_text"] == pytest.approx(float(found.worst("error")[0, 0]))


def test_the_same_input_gives_the_same_numbers() -> None:
    lm = language_model("Llama", torch.float32)
    one, other = (profile(lm, TEXTS[:1], PATTERNS, aims=()).effects for _ in range(2))
    for name in one.values:
        assert torch.equal(one.values[name], other.values[name])


def test_layers_that_are_not_wanted_stay_exact() -> None:
    found = profile(language_model("Llama"), TEXTS[:1], PATTERNS, layers=[1], aims=())
    assert found.effects.fits.tolist() == [[False, False]] * 4 + [[True, True]] * 4
    assert {layer for layer, _ in found.choose(error=100.0, length=4096).patterns} == {1}


class Picky(SlidingWindow):
    """A window that refuses heads with a window of their own."""

    def _check(self, exact: attlas.AttentionMatrix) -> None:
        if exact.visibility.window is not None:
            raise attlas.ArgumentError("pattern: wanted heads that see all, got a window")


def test_a_head_that_cannot_have_a_pattern_keeps_full() -> None:
    found = profile(language_model("Gemma 3"), TEXTS[:1], [Picky(3)], aims=())
    windows = [head.window is not None for head in found.effects.heads]
    assert any(windows)
    assert not all(windows)
    assert found.effects.fits[:, 0].tolist() == [not window for window in windows]
    chosen = found.choose(error=100.0, length=4096).patterns
    assert all(
        not windows[head.layer * 4 + head.head] for head in found.effects.heads if (head.layer, head.head) in chosen
    )
    assert found.rows()[0 if windows[0] else -1]["error"] is None


def test_an_encoder_with_a_loss_of_ones_own() -> None:
    lm = language_model("BERT")
    with pytest.raises(attlas.ArgumentError, match="loss: wanted a function of what the model returns"):
        profile(lm, TEXTS, PATTERNS)

    def sharpness(output: Any) -> Tensor:
        return output.last_hidden_state[0, 0, :3].square().sum()

    found = profile(lm, TEXTS[:2], PATTERNS, loss=sharpness, aims=(0.01,))
    assert not found.effects.heads[0].causal
    assert found.provenance.settings["loss"] == "sharpness"
    assert bool((found.effects.values["first"] != 0).any())
    wrong: list[Any] = [lambda output: output.last_hidden_state, lambda output: 3.0]
    for loss in wrong:
        with pytest.raises(attlas.ArgumentError, match="loss: wanted a function that gives one number"):
            profile(lm, TEXTS[:1], PATTERNS, loss=loss)


@pytest.mark.parametrize("family", ["Mistral", "Gemma 2", "gpt-oss", "GPT-NeoX", "Qwen3"])
def test_families(family: str) -> None:
    found = profile(language_model(family, torch.float32), TEXTS[:1], PATTERNS, aims=(0.02,))
    assert bool(found.effects.fits.all())
    assert bool(found.effects.values["dropped_mean"].isfinite().all())


def test_what_was_read_is_known_again() -> None:
    lm = language_model("Llama", torch.float32)
    found = profile(lm, TEXTS, PATTERNS, aims=(), length=25)
    assert [(text.tokens, text.of) for text in found.effects.texts] == [(25, 31), (23, 23), (25, 40)]
    settings = found.plan(error=0.5).provenance.settings
    assert len(settings[KEY]) == 3
    check_held_out(settings, [document_of(lm, TEXTS[0][1:])])
    with pytest.raises(attlas.DocumentError, match="that the plan was not made from"):
        check_held_out(settings, [document_of(lm, TEXTS[0])])


def test_progress_rises_to_its_end() -> None:
    told: list[tuple[int, int, str]] = []
    profile(language_model("Llama"), TEXTS[:2], PATTERNS, aims=(0.01,), progress=lambda *state: told.append(state))
    assert len({total for _, total, _ in told}) == 1
    done = [done for done, _, _ in told]
    assert done == sorted(done)
    assert done[-1] == told[-1][1]
    assert told[0][2] == "measuring text 1 of 2"


def test_too_short_texts_are_named_with_what_is_needed() -> None:
    lm = language_model("Llama")
    with pytest.raises(attlas.DocumentError, match=r"at least 8 tokens in each.*texts\[1\] has 3, texts\[2\] has 0"):
        profile(lm, [TEXTS[0], [5, 6, 7], []], PATTERNS)
    with pytest.raises(attlas.DocumentError, match="texts: wanted at least one, of 8 tokens or more, got none"):
        profile(lm, [], PATTERNS)
    # By default the narrowest window has 32 tokens, and 4 sinks.
    with pytest.raises(attlas.DocumentError, match=r"at least 72 tokens in each.*texts\[0\] has 31"):
        profile(language_model("Llama", positions=128), TEXTS[:1])
    with pytest.raises(attlas.ArgumentError, match=r"wanted at least 72 tokens.* of which Llama can read 64; give a"):
        profile(lm, TEXTS[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patterns": []}, "patterns: wanted patterns of attlas.patterns"),
        ({"patterns": ["window"]}, "patterns: wanted patterns of attlas.patterns"),
        ({"layers": [2]}, "layers: wanted layer numbers from 0 to 1, got 2"),
        ({"length": 1}, "length: wanted a whole number of tokens from 2"),
        ({"length": 7}, "length: wanted at least 8 tokens, twice what the narrowest of the patterns sees, got 7; give"),
        ({"aims": [0.0]}, "aims: wanted rises of the loss, above 0, got 0.0"),
        ({"loss": 3}, "loss: wanted a function"),
        ({"texts": 7}, "texts: wanted a sequence of texts"),
        ({"texts": [7]}, "text: wanted a str or token ids, got a int"),
        ({"texts": [[7] * 20 + [96]]}, "text: wanted token ids from 0 to 95, got 96"),
    ],
)
def test_what_makes_no_sense(options: dict[str, Any], message: str) -> None:
    given = {"texts": TEXTS, "patterns": PATTERNS, **options}
    with pytest.raises(attlas.ArgumentError, match=message):
        profile(language_model("Llama"), given.pop("texts"), given.pop("patterns"), **given)


def test_other_models_are_refused() -> None:
    with pytest.raises(attlas.ArgumentError, match="lm: wanted a decoder or an encoder, got a model of kind encoder-"):
        profile(language_model("T5"), TEXTS, PATTERNS)
    model: Any = language_model("Llama").model
    with pytest.raises(attlas.ArgumentError, match=r"lm: wanted what attlas\.load returned"):
        profile(model, TEXTS, PATTERNS)


def test_full_among_the_patterns_is_no_candidate() -> None:
    found = profile(language_model("Llama"), TEXTS[:1], [Full(), *PATTERNS, PATTERNS[0]], aims=())
    assert found.effects.patterns == PATTERNS
