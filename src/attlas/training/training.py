"""Train an adapter from data to a folder: the whole of it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from attlas import __version__
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, NonFiniteError, StoreError, complaint
from attlas.models.progress import Progress
from attlas.results import Provenance
from attlas.training.adapter_files import adapter_files
from attlas.training.adapting import Adapted, adapt
from attlas.training.batches import split, step_batch
from attlas.training.checking import check_causal
from attlas.training.checkpoints import CHECKPOINT, holds_adapter, read_checkpoint, sweep, write_checkpoint
from attlas.training.examples import Examples, Source, examples_of
from attlas.training.fitting import Course, fit, optimizer_of
from attlas.training.settings import LoraSettings, Targets, TrainingSettings

_LOOKED_AT = 8  # batches that an initialisation by data looks at


@dataclass(frozen=True)
class Trained:
    """What came of training an adapter.

    Parameters
    ----------
    losses : tuple of float
        Of each step's batch before the step, in nats a token.
    evaluations : tuple of (int, float)
        After how many steps, and the mean loss on the held-out examples; the first is the base model's.
    seconds : float
        Of training, evaluations and checkpoints included; over all parts of a run that was taken up again.
    trainable : int
        How many numbers were trained.
    ranks : mapping
        Name of a module -> the rank of its product.
    examples, held_out, tokens, shortened : int
        How many examples were learnt from and held out, how many tokens of the former are learnt, and how many examples
        were longer than allowed and lost their end.
    resumed_at : int
        The step at which the run was taken up again; 0 for one that was not.
    folder : str, optional
        Where the adapter is.
    provenance : Provenance
    files : mapping
        The adapter as PEFT keeps it, name of a file -> content.
    """

    losses: tuple[float, ...]
    evaluations: tuple[tuple[int, float], ...]
    seconds: float
    trainable: int
    ranks: Mapping[str, int]
    examples: int
    held_out: int
    tokens: int
    shortened: int
    resumed_at: int
    folder: str | None
    provenance: Provenance
    files: Mapping[str, bytes]

    @property
    def gain(self) -> float | None:
        """By how many nats a token the loss on the held-out examples fell; None without such."""
        return self.evaluations[0][1] - self.evaluations[-1][1] if self.evaluations else None

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain types that JSON can hold, without the adapter itself."""
        return {
            "losses": list(self.losses),
            "evaluations": [list(one) for one in self.evaluations],
            "seconds": self.seconds,
            "trainable": self.trainable,
            "ranks": dict(self.ranks),
            "examples": self.examples,
            "held_out": self.held_out,
            "tokens": self.tokens,
            "shortened": self.shortened,
            "resumed_at": self.resumed_at,
            "folder": self.folder,
            "provenance": self.provenance.as_dict(),
        }

    def __repr__(self) -> str:
        held = f", held out {self.evaluations[0][1]:.3f} → {self.evaluations[-1][1]:.3f}" if self.evaluations else ""
        return f"Trained({len(self.losses)} steps, loss {self.losses[0]:.3f} → {self.losses[-1]:.3f}{held})"


def train(
    lm: LanguageModel,
    data: Examples | Source,
    out: str | PathLike[str] | None = None,
    *,
    targets: Targets | None = None,
    lora: LoraSettings | None = None,
    settings: TrainingSettings | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Teach a model by an adapter, through PEFT; the model itself is afterwards as it was before.

    Parameters
    ----------
    lm : LanguageModel
        What `attlas.load` returned: a causal language model.
    data : Examples, str, path or sequence of mapping
        What `attlas.training.examples_of` reads.
    out : path, optional
        The folder of the adapter: ``adapter_model.safetensors`` and ``adapter_config.json``, which plain PEFT opens, a
        readable ``training.json``, and ``checkpoint.safetensors``, from which the run can be taken up again and which
        may be deleted. They are written every `TrainingSettings.save_every` steps, all together or not at all. Without
        it the adapter is only in `Trained.files`.
    targets : Targets, optional
        Which weights; queries and values of all layers by default.
    lora : LoraSettings, optional
        Which adapter.
    settings : TrainingSettings, optional
        How it is trained.
    resume : bool
        Go on from the last checkpoint in `out`, or begin where there is none yet. On the same machine the result is
        bit for bit that of a run that was never interrupted.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each step.

    Returns
    -------
    Trained

    Raises
    ------
    DocumentError
        The data cannot be read: faulty lines by their numbers.
    NonFiniteError
        The loss became NaN or infinite: at which step, and which adapter is kept.
    StoreError
        The adapter cannot be written; an older one is whole then.
    ArgumentError
        `out` holds an adapter already, or `resume` finds a run with other choices; or as `attlas.training.adapt`.
    UnsupportedModelError
        The model does not predict the next token; or as `attlas.training.adapt`.

    Notes
    -----
    Cost: a forward and a backward pass over each step's batch. The weights get no gradients, but what they are given
    has to be kept for those of the adapter.

    Examples
    --------
    >>> lm = attlas.load("smollm2-135m")  # doctest: +SKIP
    >>> trained = train(lm, "facts.jsonl", "adapter", settings=TrainingSettings(steps=300))  # doctest: +SKIP
    """
    targets, lora, settings = targets or Targets(), lora or LoraSettings(), settings or TrainingSettings()
    check_causal(lm)
    folder = None if out is None else Path(out)
    if folder is not None:
        _check_free(folder, resume=resume)
    elif resume:
        raise ArgumentError(complaint("resume", wanted="a folder, out, that holds a run", got="none"))
    examples = data if isinstance(data, Examples) else examples_of(lm, data, length=settings.length)
    if isinstance(settings.held_out, str):
        learnt, held = examples, examples_of(lm, settings.held_out, length=settings.length)
    else:
        learnt, held = split(examples, settings.held_out, settings.seed)
    run = _run(lm, learnt, held, targets, lora, settings)
    batches = [step_batch(learnt, settings.batch, settings.seed, step) for step in range(_LOOKED_AT)]
    with adapt(lm, targets, lora, seed=settings.seed, batches=batches if lora.needs_data else ()) as adapted:
        optimizer, course = optimizer_of(adapted, settings), Course()
        if folder is not None and resume and (folder / CHECKPOINT).exists():
            course = read_checkpoint(folder, adapted, optimizer, run)
            sweep(folder)
        resumed_at = course.step

        def save(course: Course, optimizer: torch.optim.Optimizer) -> None:
            if folder is not None:
                write_checkpoint(folder, adapted, course, optimizer, run)

        try:
            fit(
                adapted,
                learnt,
                settings,
                held_out=held,
                course=course,
                optimizer=optimizer,
                save=save,
                progress=progress,
            )
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {_kept(folder, settings, course, resumed_at)}") from error
        return _trained(adapted, course, learnt, held, resumed_at, folder, _provenance(lm, run))


def _check_free(folder: Path, *, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder}: wanted a folder for the adapter, got a file; choose another name")
    if holds_adapter(folder) and not (resume and (folder / CHECKPOINT).exists()):
        way_out = "go on with it by resume, move it, or choose another folder"
        raise ArgumentError(complaint("out", wanted="a folder without an adapter", got=folder, way_out=way_out))


def _run(
    lm: LanguageModel,
    learnt: Examples,
    held: Examples,
    targets: Targets,
    lora: LoraSettings,
    settings: TrainingSettings,
) -> dict[str, Any]:
    """Return what makes a run that run, as plain types; another of any of these gives another adapter."""
    return {
        "model": lm.facts.fingerprint,
        "dtype": str(next(lm.model.parameters()).dtype).removeprefix("torch."),
        "targets": targets.as_dict(),
        "lora": lora.as_dict(),
        "training": settings.as_dict(),
        "data": learnt.digest,
        "held_out_data": held.digest,
    }


def _kept(folder: Path | None, settings: TrainingSettings, course: Course, resumed_at: int) -> str:
    saved = course.step - course.step % settings.save_every if settings.save_every else 0
    saved = max(saved, resumed_at)
    if folder is None or not saved:
        return "nothing was saved"
    return f"{folder} holds the adapter of step {saved}"


def _provenance(lm: LanguageModel, run: Mapping[str, Any]) -> Provenance:
    settings = {**run, "torch": torch.__version__, "threads": torch.get_num_threads()}
    return Provenance(__version__, lm.name, lm.facts.fingerprint, settings)


def _trained(
    adapted: Adapted,
    course: Course,
    learnt: Examples,
    held: Examples,
    resumed_at: int,
    folder: Path | None,
    provenance: Provenance,
) -> Trained:
    return Trained(
        losses=tuple(course.losses),
        evaluations=tuple(course.evaluations),
        seconds=course.seconds,
        trainable=adapted.trainable,
        ranks=dict(adapted.ranks),
        examples=len(learnt),
        held_out=len(held),
        tokens=learnt.tokens,
        shortened=learnt.shortened,
        resumed_at=resumed_at,
        folder=None if folder is None else str(folder),
        provenance=provenance,
        files=adapter_files(adapted),
    )
