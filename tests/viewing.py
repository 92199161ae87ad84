"""A small model's heads on a small text, for tests of pages and pictures; and how a page is opened in a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import attlas
import tuning
from attlas.compare import Comparison
from attlas.heads import HeadStatistics, head_statistics
from attlas.heads.role_table import HeadTable, Sample, score_role
from attlas.heads.roles import ROLES
from attlas.projections.composing import Edge
from attlas.projections.table import Column
from attlas.results import Provenance
from attlas.view.cards import Cards, PredictionCard, RoleCard
from attlas.view.projections_page import ProjectionFacts, projections_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

LAYERS, HEADS = 3, 4


def captured(length: int, *, batch: int = 1, layers: int = LAYERS) -> attlas.Capture:
    """Return what a random model does with random tokens."""
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        vocab_size=64,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
        with attlas.capture(model) as cap:
            model(input_ids=torch.randint(0, 64, (batch, length)))
    return cap


def measured(tokens: list[str] | None = None, length: int = 40) -> HeadStatistics:
    """Return the statistics of a random model on `tokens`, by default on short words."""
    tokens = tokens or [f" word{i}" for i in range(length)]
    cap = captured(len(tokens))
    return head_statistics(cap.of_document("".join(tokens), tokens, model="tiny", fingerprint="f00d"))


def role_table(cap: attlas.Capture, *, model: str | None = None) -> HeadTable:
    """Return random scores of two roles for all heads of a capture; as those of another model if one is named."""
    heads = tuple((layer, head) for layer in cap.layers for head in cap.heads(layer))
    score = torch.rand(20, len(heads), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = 0.1 * score + 0.9 * (torch.arange(len(heads)) % 2)
    sample = Sample(score, {"chance": torch.full((20, 1), 0.3, dtype=torch.float64)})
    provenance = cap.provenance if model is None else replace(cap.provenance, fingerprint=model)
    return HeadTable(heads, {role.name: score_role(role, sample) for role in ROLES[:2]}, provenance=provenance)


ALL_HEADS = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
EDGES = (
    Edge((0, 1), (2, 3), "k", 0.5, 9.0),
    Edge((0, 1), (1, 0), "v", 0.4, 7.0),
    Edge((1, 0), (2, 3), "q", 0.3, 5.0),
)


def known(word: str = "induction") -> Cards:
    """Return made-up knowledge of the heads of `measured`, with `word` wherever a page shows text."""
    count = len(ALL_HEADS)
    torch.manual_seed(0)
    spectra = torch.rand(2, count, 8).sort(descending=True).values
    numbers = [float(i) for i in range(count)]
    return Cards(
        heads=ALL_HEADS,
        columns=(
            Column("qk_effective_rank", "QK rank", "", "Effective rank.", "Roy and Vetterli 2007", "random heads"),
            Column("ov_effective_rank", "OV rank", "", "Effective rank.", "", ""),
            Column("share", "its share", "share", "A share.", "", ""),
            Column("word", word, "", word, word, word),
        ),
        values={
            "qk_effective_rank": numbers,
            "ov_effective_rank": numbers[::-1],
            "share": [None, *[value / 100 for value in numbers[1:]]],
            "word": [word] * count,
        },
        chance={"qk_effective_rank": [6.0] * count, "ov_effective_rank": [6.0] * count},
        tracks={
            "qk": spectra[0],
            "ov": spectra[1],
            "qk_chance": spectra[0].mean(0, keepdim=True),
            "ov_chance": spectra[1].mean(0, keepdim=True),
            "kernel": torch.rand(count, 16).softmax(-1),
            "measured": torch.rand(count, 16).softmax(-1),
        },
        edges=EDGES,
        level=0.18,
        roles=(_role("induction", word, 11), _role("previous_token", "previous token", 1)),
        predictions=(PredictionCard(word, word, 0.9, 0.8, 0.95, 3), PredictionCard("other", word, 0.5, 0.4, 0.6, 3)),
        role=[word if i == 11 else "previous token" if i == 1 else None for i in range(count)],
    )


def _role(name: str, label: str, passing: int) -> RoleCard:
    count = len(ALL_HEADS)
    score = [0.8 if i == passing else 0.1 for i in range(count)]
    return RoleCard(
        name=name,
        label=label,
        meaning=label,
        score=score,
        low=[value - 0.05 for value in score],
        high=[value + 0.05 for value in score],
        baseline=[0.12] * count,
        passes=[i == passing for i in range(count)],
        notes=[None] * count,
    )


def projected(word: str = "induction", model: str = "tiny", *, cards: Cards | None = None) -> str:
    """Return the page of projections of made-up knowledge."""
    facts = ProjectionFacts(
        LAYERS, HEADS, 2, 8, 32, {"query": 3072, "key": 1536, "value": 1536, "output": 3072, "other": 9}
    )
    modules = [f"{word}.{layer}" for layer, _ in ALL_HEADS]
    return projections_page(cards or known(word), facts, Provenance("0", model), error=3e-7, modules=modules)


@lru_cache
def compared(*, text: bool = True) -> Comparison:
    """Return what was compared of a small random model and one whose weights all moved a little."""
    base = tuning.tiny("Llama", torch.float32)
    pair = [tuning.language_model(model, "tiny") for model in (base, tuning.fine_tuned(base))]
    return attlas.compare(pair[0], pair[1], tuning.IDS if text else None, restore=2)


def renamed(found: Comparison, words: str, tokens: Sequence[str]) -> Comparison:
    """Return a comparison with these words wherever it holds words, and these tokens, over and over."""
    assert found.moved is not None
    many = tuple(tokens[i % len(tokens)] for i in range(found.moved.n))
    rows = tuple({**row, "module": f"{words}{row['module']}", "role": words} for row in found.modules.rows())
    provenance = replace(found.provenance, model=words, settings={**found.provenance.settings, "tuned": words})
    return replace(
        found,
        layers=tuple(replace(layer, name=words) for layer in found.layers),
        modules=replace(found.modules, _rows=rows),
        moved=replace(found.moved, tokens=many),
        notes=(words,),
        reasons={"restored": words},
        provenance=provenance,
    )


def written(folder: Path, name: str, page: str) -> str:
    """Write a page; return its address."""
    path = folder / f"{name}.html"
    path.write_text(page, encoding="utf-8")
    return path.as_uri()


def opened(page: Page, address: str, state: str = "") -> Page:
    """Open a page afresh, in the state that its address names, and wait until all of it is drawn."""
    page.goto("about:blank")
    page.goto(f"{address}#{state}" if state else address)
    page.wait_for_selector("html[data-ready]")
    return page
