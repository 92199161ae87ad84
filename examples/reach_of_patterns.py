"""Train the same tiny model with five ways to remember, on what was said just now and on what was said long ago.

A sequence states facts (a token each: of this name, that thing) and asks for them later (a name; the answer is the fact
about it). Near: a fact stands at most seven tokens back. Far: the first half states 32 facts, and the second asks for
them. Full attention can look anywhere; a sliding window as far as its width, once a layer; block-sparse attention at a
few blocks anywhere, which a block of queries chooses together; linear attention (Katharopoulos et al. 2020, arXiv
2006.16236) and an LSTM (Hochreiter and Schmidhuber 1997) carry a state of fixed size. The task is a small form of
associative recall (Arora et al. 2023, arXiv 2312.04927). Takes two or three minutes on two cores, less with fewer steps
(`python reach_of_patterns.py 100`); draws reach.png.
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own short name
from torch import Tensor, nn

from attlas.nn import Decoder
from attlas.patterns import BlockSparse, Full, Linear, Pattern, SlidingWindow

NAMES, THINGS, LENGTH, GROUP = 32, 8, 64, 8
VOCABULARY = 1 + NAMES + NAMES * THINGS  # nothing, names, facts
WIDTH, HEADS, LAYERS, HIDDEN = 32, 2, 2, 32
RECURRENT = 40  # the LSTM's state, for as many parameters
STEPS = int(sys.argv[1]) if len(sys.argv) > 1 else 500
BATCH, EVERY, TESTED = 32, 50, 128
SEED = 0
PICTURE = Path("reach.png")

PATTERNS: dict[str, Pattern] = {
    "full": Full(),
    "window of 8": SlidingWindow(8),
    "3 blocks of 8": BlockSparse(8, top=3),
    "linear": Linear("elu"),
}
MODELS = (*PATTERNS, "LSTM")
TASKS = {"near": "at most 7 tokens back", "far": f"{NAMES} facts in the first half"}


@dataclass(frozen=True)
class Sequences:
    """What a batch reads, (batch, LENGTH); what it is to answer, -100 where nothing is asked; and how far back."""

    ids: Tensor
    answers: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Learnt:
    """How often a model was right on fresh sequences: every so many steps, and in the end by distance."""

    model: str
    task: str
    parameters: int
    steps: list[int]
    right: list[float]
    by_distance: dict[int, float]


class Recurrent(nn.Module):
    """An LSTM whose output shares the embedding's weights, as the decoder's does."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        nn.init.normal_(self.embedding.weight, std=WIDTH**-0.5)
        self.lstm = nn.LSTM(WIDTH, RECURRENT, batch_first=True)
        self.out = nn.Linear(RECURRENT, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits of what comes next."""
        return F.linear(self.out(self.lstm(self.embedding(ids))[0]), self.embedding.weight)


def made(name: str) -> nn.Module:
    """Make a model from the seed."""
    torch.manual_seed(SEED)
    if name not in PATTERNS:
        return Recurrent()
    return Decoder(VOCABULARY, WIDTH, HEADS, LAYERS, hidden=HIDDEN, patterns=PATTERNS[name], position="rotary")


def drawn(task: str, batch: int, generator: torch.Generator) -> Sequences:
    """Draw sequences of a task."""
    empty = torch.zeros(batch, LENGTH, dtype=torch.int64)
    made = Sequences(empty, torch.full_like(empty, -100), empty.clone())
    if task == "far":
        state_and_ask(made, NAMES, 0, LENGTH // 2, LENGTH, generator)
    else:
        for first in range(0, LENGTH, GROUP):
            state_and_ask(made, 2, first, first + GROUP // 2, first + GROUP, generator)
    return made


def state_and_ask(into: Sequences, facts: int, begin: int, middle: int, end: int, generator: torch.Generator) -> None:
    """State facts about different names somewhere in the first stretch, and ask for each in the second."""
    batch = len(into.ids)

    def some(of: int) -> Tensor:
        return torch.rand(batch, of, generator=generator).argsort(1)[:, :facts]

    names, things = some(NAMES), torch.randint(THINGS, (batch, facts), generator=generator)
    stated, asked, row = begin + some(middle - begin), middle + some(end - middle), torch.arange(batch)[:, None]
    said = 1 + NAMES + names * THINGS + things
    into.ids[row, stated], into.ids[row, asked] = said, 1 + names
    into.answers[row, asked], into.distances[row, asked] = said, asked - stated


@torch.no_grad()
def tested(model: nn.Module, task: str) -> tuple[float, dict[int, float]]:
    """Return how often the model is right on sequences that it has not seen: altogether, and by distance."""
    fresh = drawn(task, TESTED, torch.Generator().manual_seed(SEED + 1))
    right = (model(fresh.ids).argmax(-1) == fresh.answers).double()
    asked = fresh.answers >= 0
    near = fresh.distances // GROUP
    places = {int(place): asked & (near == place) for place in near[asked].unique()}
    return float(right[asked].mean()), {place * GROUP: float(right[where].mean()) for place, where in places.items()}


def trained(name: str, task: str) -> Learnt:
    """Train a model on a task, in one thread: so the same numbers come out wherever it runs."""
    torch.set_num_threads(1)
    model, generator = made(name), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    steps, right, by_distance = [], [], {}
    for step in range(STEPS + 1):
        if step % EVERY == 0:
            now, by_distance = tested(model, task)
            steps.append(step)
            right.append(now)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 50)
        batch = drawn(task, BATCH, generator)
        loss = F.cross_entropy(model(batch.ids).mT, batch.answers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    parameters = sum(p.numel() for p in model.parameters())
    return Learnt(name, task, parameters, steps, right, by_distance)


def train_all() -> dict[tuple[str, str], Learnt]:
    """Train every model on every task, two at a time, the slowest task first."""
    found = {}
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        todo = [pool.submit(trained, name, task) for task in reversed(TASKS) for name in MODELS]
        for done in as_completed(todo):
            one = done.result()
            found[one.model, one.task] = one
            print(f"{len(found):2} of {len(todo)}  {one.model:14} {one.task:5} {one.right[-1]:5.0%}", flush=True)
    return found


def tell(found: dict[tuple[str, str], Learnt]) -> None:
    """Print how often each is right in the end, and after how many steps it was right nine times in ten."""
    print(f"\n{'':15}{'parameters':>11}" + "".join(f"{task:>16}" for task in TASKS))
    for name in MODELS:
        line = f"{name:15}{found[name, 'near'].parameters:11,}"
        for task in TASKS:
            one = found[name, task]
            when = next((step for step, right in zip(one.steps, one.right, strict=True) if right >= 0.9), None)
            line += f"{one.right[-1]:6.0%} {'' if when is None else f'(step {when})':>9}"
        print(line)
    print(f"{'a guess':15}{'':11}" + f"{1 / THINGS:6.0%} {'':9}" * len(TASKS))


def draw(found: dict[tuple[str, str], Learnt]) -> None:
    """Draw learning curves on both tasks, and how often models are right by distance."""
    figure, places = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained", sharey=True)
    for name in MODELS:
        for place, (task, what) in zip(places, TASKS.items(), strict=False):
            one = found[name, task]
            place.plot(one.steps, one.right, label=name)
            place.set(title=f"{task}: {what}", xlabel="step")
        by_distance = found[name, "far"].by_distance
        places[2].plot([at + GROUP / 2 for at in by_distance], list(by_distance.values()), marker="o")
    for place in places:
        place.axhline(1 / THINGS, color="grey", linestyle=":")
    places[2].set(title="far, in the end", xlabel="tokens back")
    places[0].set(ylabel="share of questions answered right", ylim=(0, 1.05))
    places[0].legend(loc="lower right")
    figure.savefig(PICTURE, dpi=100)


def main() -> None:
    """Train, tell and draw."""
    found = train_all()
    tell(found)
    draw(found)
    print(f"\npicture: {PICTURE}")


if __name__ == "__main__":
    main()
