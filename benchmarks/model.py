"""What a real model on a real document costs to capture and to ask."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import attlas
from attlas.heads import head_statistics
from benchmarks.measuring import Row, in_fresh_process, in_turn, megabytes, seconds

if TYPE_CHECKING:
    from attlas import LanguageModel

MODEL = os.environ.get("ATTLAS_BENCH_MODEL", "smollm2-135m")
"""What is measured; ATTLAS_BENCH_MODEL names another decoder."""

TEXT = "ATTLAS_BENCH_TEXT"
"""The variable that names another text than the demo's document."""

LONGEST = 8192


def open_demo(tokens: int = LONGEST) -> tuple[LanguageModel, str]:
    """Return the demo's model and its document, or the document's first tokens."""
    lm = attlas.load(MODEL)
    # Choosing takes seconds; the processes that this one starts are told what was chosen.
    if TEXT not in os.environ:
        os.environ[TEXT] = str(_chosen(lm))
    text = Path(os.environ[TEXT]).read_text(encoding="utf-8")
    ends = [end for _, end in lm.tokenize(text).offsets or ()]
    return lm, text[: ends[min(tokens, len(ends)) - 1]]


def _chosen(lm: LanguageModel) -> Path:
    """Return the demo's document."""
    place = Path(__file__).parent.parent / "examples" / "demo_document.py"
    spec = importlib.util.spec_from_file_location("demo_document", place)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.choose(lm)


def plain_forward(lm: LanguageModel, text: str) -> None:
    """Run the model's own forward pass, with the logits of the last token only."""
    ids = torch.tensor([lm.tokenize(text).ids])
    with torch.no_grad():
        lm.model(ids, use_cache=False, logits_to_keep=1)


def capture_forward(lm: LanguageModel, text: str) -> attlas.Capture:
    """Do the same under a capture."""
    ids = torch.tensor([lm.tokenize(text).ids])
    with attlas.capture(lm.model) as captured, torch.no_grad():
        lm.model(ids, use_cache=False, logits_to_keep=1)
    return captured


def reading(rounds: int, length: int = LONGEST) -> list[Row]:
    """The forward pass with capture, and the statistics of all heads, both against the plain forward pass."""
    lm, text = open_demo(length)
    tokens = len(lm.tokenize(text))
    captured = capture_forward(lm, text)
    matrices = sum(layer.shape[1] for layer in captured)

    def plain() -> None:
        plain_forward(lm, text)

    capturing = in_turn(lambda: capture_forward(lm, text), plain, rounds)
    asking = in_turn(lambda: five_statistics(captured), plain, rounds, warm_up=0)
    table = in_turn(lambda: head_statistics(captured), plain, rounds, warm_up=0)
    forward = f"the model's plain forward pass ({MODEL}, {tokens:,} tokens)"
    return [
        Row("forward pass with capture", forward, capturing.reached(3), "≤ 1.03", capturing.detail()),
        Row(f"five statistics of all {matrices} heads", "the same", asking.reached(), "≤ 1.00", asking.detail()),
        Row(
            f"the whole table and page data of `attlas map`, {matrices} heads",
            "the same",
            table.reached(),
            "–",
            table.detail(),
        ),
    ]


def five_statistics(captured: attlas.Capture) -> None:
    """Ask every layer for received, entropy, distance, mass and a pooled map, in one pass each."""
    from attlas.matrix import Distance, Entropy, Mass, Pool, Received, ask

    for layer in captured:
        ask(layer, Received(), Entropy(), Distance(), Mass(256, 4), Pool((64, 64)))


def memory(length: int = LONGEST) -> Row:
    """Peak memory of capturing and drawing, beyond that of the forward pass alone."""
    tokens, plain = in_fresh_process("forward", str(length))
    _, whole = in_fresh_process("atlas", str(length))
    extra = float(whole) - float(plain)
    dense = 270 * int(tokens) ** 2 * 4
    return Row(
        "extra memory of capture and atlas",
        f"270 dense float32 matrices: {dense / 1e9:.1f} GB (arithmetic)",
        f"1/{dense / max(extra, 1.0):,.0f}",
        "≤ 1/40",
        f"{megabytes(extra)} beyond the forward pass alone (peak of the whole process {megabytes(float(whole))})",
    )


def page(length: int = 512) -> Row:
    """The page for 512 tokens, all heads, against BertViz where it is installed."""
    took, size, peak, tokens = in_fresh_process("our_page", str(length))
    ours = f"{megabytes(float(size))}, {seconds(float(took))}"
    if importlib.util.find_spec("bertviz") is None or os.environ.get("ATTLAS_BENCH_BERTVIZ") == "0":
        against = "BertViz 1.4.1 `head_view` (`pip install --no-deps bertviz==1.4.1 ipython` to compare)"
    else:
        their_took, their_size, their_peak, _ = in_fresh_process("bertviz_page", str(length))
        against = (
            f"BertViz `head_view`: {megabytes(float(their_size))}, {seconds(float(their_took))}, "
            f"peak {float(their_peak) / 1e9:.1f} GB"
        )
    return Row(
        f"page for {tokens} tokens, all 270 heads",
        against,
        ours,
        "≤ 5 MB, ≤ 5 s, ≤ 1.5 GB",
        f"peak memory of the whole process, model and capture included, {float(peak) / 1e9:.2f} GB",
    )
