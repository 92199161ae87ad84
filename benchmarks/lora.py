"""LoRA on a real model: whether it learns what the model does not know, the same again, and against plain PEFT."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import nn

import attlas
from attlas import LanguageModel
from attlas.training import LoraSettings, Targets, TrainingSettings, adapt, examples_of, fit, merge, train
from attlas.training.batches import step_batch
from attlas.training.losses import IGNORED
from attlas.training.tasks import Task, make_task, score
from benchmarks.measuring import Row, in_turn, seconds
from benchmarks.model import MODEL

AIM = 1.05
ENDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TARGETS, LORA = Targets(("all",)), LoraSettings(8)
WAIT = 600.0  # seconds for the first checkpoint of a run that shall be killed


@dataclass(frozen=True)
class Sizes:
    """How much is done.

    Parameters
    ----------
    steps : int
        Of the run that teaches facts.
    again : int
        Of the runs that shall end alike.
    beside : int
        Of the runs that are timed in turn.
    batch : int
    """

    steps: int = 120
    again: int = 12
    beside: int = 24
    batch: int = 16

    def settings(self, steps: int, **changes: Any) -> TrainingSettings:
        """Return how a run of so many steps is made."""
        usual = {"learning_rate": 2e-3, "warmup": 0.1, "decay": "linear", "held_out": 0.0, "length": 64}
        return TrainingSettings(**{**usual, "steps": steps, "batch": self.batch, **changes})


TINY = Sizes(steps=2, again=3, beside=2, batch=2)


def rows(rounds: int, *, tiny: bool) -> Iterator[Row]:
    """Measure all of it."""
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    sizes, lm = TINY if tiny else Sizes(), attlas.load(MODEL)
    with tempfile.TemporaryDirectory() as place:
        yield from _taught(lm, sizes, Path(place))
        yield from _the_same(lm, sizes, Path(place))
    yield from _beside(lm, sizes, rounds)


def _taught(lm: LanguageModel, sizes: Sizes, place: Path) -> Iterator[Row]:
    task = make_task("facts")
    before = score(lm, task.held_out)
    settings = sizes.settings(sizes.steps, save_every=0)
    trained = train(lm, task.examples(), place / "adapter", targets=TARGETS, lora=LORA, settings=settings)
    opened = peft.PeftModel.from_pretrained(lm.model, place / "adapter")
    beside = score(lm, task.held_out, model=opened)
    opened.unload()
    for dtype in ("float32", "bfloat16"):
        merged = merge(lm, place / "adapter", place / dtype, dtype=dtype)
        after = score(attlas.load(place / dtype), task.held_out)
        yield Row(
            f"facts told in some words, asked for in others: merged in {dtype}",
            f"the base: {_told(before)}; the adapter in plain PEFT: {_told(beside)}",
            f"{100 * after.accuracy:.0f} %",
            "the adapter's",
            f"loss of the answers {after.loss:.3f}; of a module's change at most {100 * merged.worst.loss:.2g} % lost",
        )
    yield Row(
        "time of teaching them",
        "–",
        seconds(trained.seconds),
        "–",
        f"{len(trained.losses)} steps of {sizes.batch} examples, rank {LORA.rank} beside all {len(trained.ranks)} "
        f"linear modules, {trained.trainable:,} numbers; loss of a batch {trained.losses[0]:.3f} → "
        f"{trained.losses[-1]:.3f}",
    )


def _told(found: Any) -> str:
    return f"{100 * found.accuracy:.0f} % right, loss {found.loss:.3f}"


def _the_same(lm: LanguageModel, sizes: Sizes, place: Path) -> Iterator[Row]:
    settings = sizes.settings(sizes.again, save_every=1)
    one, two, other = (
        train(lm, _data(), targets=TARGETS, lora=LORA, settings=sizes.settings(sizes.again, seed=seed))
        for seed in (0, 0, 1)
    )
    yield Row(
        "the same seed again",
        "another seed",
        "the same bytes" if one.files == two.files else "other bytes",
        "the same bytes",
        f"{sizes.again} steps; another seed: {'the same' if one.files == other.files else 'other'} bytes",
    )
    step = _killed(place / "cut", sizes)
    taken = train(lm, _data(), place / "cut", targets=TARGETS, lora=LORA, settings=settings, resume=True)
    yield Row(
        "a run killed by SIGKILL and taken up again",
        "a run that was not interrupted",
        "the same bytes" if taken.files == one.files and taken.losses == one.losses else "other bytes",
        "the same bytes",
        f"killed in step {step + 1} or later of {sizes.again}, taken up after step {taken.resumed_at}",
    )


def _data() -> list[dict[str, str]]:
    return make_task("facts").examples()


def teach(folder: str, steps: str, batch: str) -> None:
    """Train until something stops it; run in a process of its own."""
    sizes = Sizes(again=int(steps), batch=int(batch))
    settings = sizes.settings(sizes.again, save_every=1)
    lm = attlas.load(MODEL)
    # Slow enough that it is killed on its way, however fast the machine is.
    train(lm, _data(), folder, targets=TARGETS, lora=LORA, settings=settings, progress=lambda *_: time.sleep(0.5))


def _killed(folder: Path, sizes: Sizes) -> int:
    """Kill a run after a third of its steps, and return which step it had saved."""
    command = [sys.executable, "-m", "benchmarks.tasks", "teach", str(folder), str(sizes.again), str(sizes.batch)]
    record, until = folder / "training.json", time.monotonic() + WAIT
    with subprocess.Popen(command) as process:
        while not record.exists() or json.loads(record.read_text())["step"] < sizes.again // 3:
            if process.poll() is not None or time.monotonic() > until:
                process.kill()
                raise RuntimeError("the run that was to be killed ended, or saved nothing")
            time.sleep(0.05)
        process.kill()
    return json.loads(record.read_text())["step"]


def _beside(lm: LanguageModel, sizes: Sizes, rounds: int) -> Iterator[Row]:
    task, settings = make_task("facts"), sizes.settings(sizes.beside)
    losses: dict[str, list[float]] = {}

    def ours() -> None:
        with adapt(lm, TARGETS, LORA) as adapted:
            losses["ours"] = fit(adapted, examples_of(lm, task.examples(), length=settings.length), settings).losses

    def theirs() -> None:
        losses["theirs"] = by_hand(lm, task, settings)

    ratio = in_turn(ours, theirs, rounds)
    apart = max(abs(a - b) for a, b in zip(losses["ours"], losses["theirs"], strict=True))
    yield Row(
        "time of training an adapter, finding its modules included",
        "plain PEFT, the same steps by hand",
        ratio.reached(),
        f"≤ {AIM:.2f}",
        f"{ratio.detail()}; {sizes.beside} steps of {sizes.batch} examples",
    )
    yield Row(
        "the losses of these steps",
        "the same",
        f"at most {apart:.1e} apart",
        "the same curve",
        f"from {losses['theirs'][0]:.3f} to {losses['theirs'][-1]:.3f} nats a token",
    )


def by_hand(lm: LanguageModel, task: Task, settings: TrainingSettings) -> list[float]:
    """Train with plain PEFT, as its users do: masks for padding, labels, the model's own loss, PyTorch's schedule."""
    examples = examples_of(lm, task.examples(), length=settings.length)
    torch.manual_seed(settings.seed)
    config = peft.LoraConfig(r=LORA.rank, lora_alpha=int(LORA.alpha), target_modules=list(ENDS), task_type="CAUSAL_LM")
    model: Any = peft.get_peft_model(lm.model, config)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    up = round(settings.warmup * settings.steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (step + 1) / up if step < up else (settings.steps - step) / max(1, settings.steps - up)
    )
    model.train()
    losses = []
    for step in range(settings.steps):
        batch = step_batch(examples, settings.batch, settings.seed, step)
        # The end of each example is learnt, so what comes behind the last such token is padding.
        learnt = batch["labels"] != IGNORED
        mask = learnt.flip(1).cumsum(1).flip(1) > 0
        loss = model(**batch, attention_mask=mask.long(), use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(trained, settings.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    model.eval()
    model.unload()
    if not all(map(math.isfinite, losses)):
        raise RuntimeError("plain PEFT came to a loss that is no number")
    return losses
