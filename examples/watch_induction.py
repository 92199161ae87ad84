"""Train a two-layer model of attention alone on repeated sequences, and watch induction heads form.

A random sequence that repeats can be continued by looking for the token that followed the current one the first time.
Two heads do it together: one in the first layer, that attends to the token before its own, and one in the second, that
attends to where that one saw the current token (Olsson et al. 2022, arXiv 2209.11895). Sequences have periods of many
lengths, so that counting back is of no use. Takes a minute or two; draws induction.png.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor

from attlas.heads.detectors import Pairs, sums_of_pairs
from attlas.matrix import AttentionMatrix
from attlas.nn import Decoder

VOCABULARY, WIDTH, HEADS = 64, 128, 4
LENGTH, PERIODS = 80, (16, 40)
BATCH, STEPS, EVERY = 32, 500, 20
SEED = 0
PICTURE = Path("induction.png")


@dataclass
class History:
    """What was measured every so many steps."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    previous: list[Tensor] = field(default_factory=list)  # (layer, head) each
    induction: list[Tensor] = field(default_factory=list)


def repeated(batch: int, generator: torch.Generator, period: int | None = None) -> tuple[Tensor, Tensor]:
    """Return sequences that repeat, (batch, LENGTH), and their periods; no token comes twice in a period."""
    low, high = PERIODS
    periods = torch.randint(low, high + 1, (batch,), generator=generator)
    periods = periods if period is None else torch.full((batch,), period)
    order = torch.rand(batch, VOCABULARY, generator=generator).argsort(1)
    return order.gather(1, torch.arange(LENGTH) % periods[:, None]), periods


def loss_of(model: Decoder, ids: Tensor, periods: Tensor) -> Tensor:
    """Return the mean loss of the tokens that can be known: those that were seen a period ago."""
    losses = F.cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:], reduction="none")
    known = torch.arange(1, LENGTH) >= periods[:, None] + 1
    return losses[known].mean()


def measure(model: Decoder, history: History, step: int, loss: float) -> None:
    """Score every head on fresh sequences: how much it attends to the token before, and to what followed last time."""
    fresh = torch.Generator().manual_seed(SEED + 1)
    previous, induction = [], []
    for period in (20, 30):
        ids, _ = repeated(16, fresh, period)
        # The second time: after it there are several places where the current token stood before.
        later = torch.arange(period, 2 * period)
        groups = [
            Pairs("previous", later, later - 1, None, torch.tensor([len(later)])),
            Pairs("induction", later, later - period + 1, None, torch.tensor([len(later)])),
        ]
        found = [sums_of_pairs(one, groups) for one in model.attention(ids) if isinstance(one, AttentionMatrix)]
        previous.append(torch.stack([layer["previous"].mean(0) for layer in found]))
        induction.append(torch.stack([layer["induction"].mean(0) for layer in found]))
    history.steps.append(step)
    history.losses.append(loss)
    history.previous.append(torch.stack(previous).mean(0))
    history.induction.append(torch.stack(induction).mean(0))


def train() -> tuple[History, list[Tensor], list[Tensor]]:
    """Train, and return what was measured, and both layers' matrices of one sequence before and after."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Decoder(VOCABULARY, WIDTH, HEADS, 2, hidden=0, position="rotary")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    shown, _ = repeated(1, torch.Generator().manual_seed(SEED + 2), 30)
    before = [one.to_dense()[0] for one in model.attention(shown)]
    history = History()
    for step in range(STEPS + 1):
        loss = loss_of(model, *repeated(BATCH, generator))
        if step % EVERY == 0:
            measure(model, history, step, loss.item())
            tell(history)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return history, before, [one.to_dense()[0] for one in model.attention(shown)]


def tell(history: History) -> None:
    """Print a line of progress."""
    line = f"step {history.steps[-1]:5,}  loss {history.losses[-1]:.3f}"
    told = (("previous token", 0, history.previous[-1]), ("induction", 1, history.induction[-1]))
    for name, layer, scores in told:
        best = int(scores[layer].argmax())
        line += f"   {name} {float(scores[layer, best]):.2f} (layer {layer}, head {best})"
    print(line, flush=True)


def draw(history: History, before: list[Tensor], after: list[Tensor]) -> None:
    """Draw the loss, both scores of all heads, and both heads' matrices before and after."""
    heads = [int(history.previous[-1][0].argmax()), int(history.induction[-1][1].argmax())]
    rows: list[Any] = [["loss", *(f"{what} {row}" for what in ("score", "before", "after"))] for row in range(2)]
    figure, places = plt.subplot_mosaic(rows, figsize=(15, 7), layout="constrained")
    places["loss"].plot(history.steps, history.losses, color="black")
    places["loss"].set(title="loss of the tokens that can be known", xlabel="step", ylabel="nats", ylim=(0, None))
    scores = (("attends to the token before", history.previous), ("attends to what followed", history.induction))
    for row, (name, found) in enumerate(scores):
        place = places[f"score {row}"]
        for layer in range(2):
            for head in range(HEADS):
                best = (layer, head) == (row, heads[row])
                line = [float(score[layer, head]) for score in found]
                label = f"layer {layer}, head {head}" if best else None
                place.plot(history.steps, line, color=f"C{layer}", alpha=1 if best else 0.3, label=label)
        place.set(title=name, xlabel="step", ylabel="share of attention", ylim=(0, 1))
        place.legend()
        for when, matrices in (("before", before), ("after", after)):
            place = places[f"{when} {row}"]
            place.imshow(matrices[row][heads[row]], cmap="magma", vmin=0, vmax=1)
            place.set(title=f"layer {row}, head {heads[row]}, {when}", xlabel="key", ylabel="query")
    figure.savefig(PICTURE, dpi=100)


def main() -> None:
    """Train, draw, and say what came of it."""
    history, before, after = train()
    draw(history, before, after)
    first, last = ((float(history.previous[at][0].max()), float(history.induction[at][1].max())) for at in (0, -1))
    print(f"\nprevious-token head {first[0]:.2f} -> {last[0]:.2f}, induction head {first[1]:.2f} -> {last[1]:.2f}")
    print(f"picture: {PICTURE}")


if __name__ == "__main__":
    main()
