"""A run on the disk: the adapter so far, and beside it what is needed to go on as if nothing had happened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attlas import __version__
from attlas._writing import Content, write_together
from attlas.capture.tensor_file import content_of, read_file
from attlas.errors import ArgumentError, StoreError, complaint
from attlas.models.adapter_file import CONFIG, WEIGHTS
from attlas.training.adapter_files import adapter_files
from attlas.training.adapting import Adapted
from attlas.training.fitting import Course

CHECKPOINT = "checkpoint.safetensors"
RECORD = "training.json"
_ADAPTER, _STATE = "adapter/", "optimizer/"
_FORMAT = 1


def write_checkpoint(
    folder: Path, adapted: Adapted, course: Course, optimizer: torch.optim.Optimizer, run: Mapping[str, Any]
) -> None:
    """Write the adapter, the state of its training and a readable record of it; the old ones stay until all are there.

    Parameters
    ----------
    folder : Path
    adapted : Adapted
    course : Course
    optimizer : torch.optim.Optimizer
    run : mapping
        What the run is: its settings, its data, its model, as plain types.

    Raises
    ------
    StoreError
        They cannot be written.
    """
    tensors = {f"{_ADAPTER}{name}": one for name, one in adapted.tensors().items()}
    for name, values in _named_state(adapted, optimizer).items():
        tensors |= {f"{_STATE}{name}/{key}": value.detach().cpu() for key, value in values.items()}
    about = {
        "format": _FORMAT,
        "attlas": __version__,
        "run": run,
        "step": course.step,
        "losses": course.losses,
        "evaluations": course.evaluations,
        "seconds": course.seconds,
    }
    files: dict[str, Content] = {
        **adapter_files(adapted),
        RECORD: (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode(),
        CHECKPOINT: content_of(tensors, about),
    }
    write_together({folder / name: content for name, content in files.items()})


def read_checkpoint(folder: Path, adapted: Adapted, optimizer: torch.optim.Optimizer, run: Mapping[str, Any]) -> Course:
    """Give the adapter and the optimiser what a checkpoint holds, and return how far its run was.

    Raises
    ------
    StoreError
        The file is not a whole checkpoint.
    ArgumentError
        The run had other settings, data or another model: what differs.
    """
    path = folder / CHECKPOINT
    file = read_file(path, check=True)
    try:
        about = file.description
        before = about["run"]
        course = Course(
            int(about["step"]),
            [float(loss) for loss in about["losses"]],
            [(int(step), float(loss)) for step, loss in about["evaluations"]],
            float(about["seconds"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: wanted a checkpoint that attlas wrote, got another file ({error})") from error
    if about.get("format") != _FORMAT:
        raise StoreError(f"{path}: wanted a checkpoint of format {_FORMAT}, got {about.get('format')!r}")
    if other := differences(before, json.loads(json.dumps(run))):
        way_out = "take them up again, or choose another folder for a new run"
        raise ArgumentError(
            complaint("resume", wanted="the choices that the run began with", got=f"other {other}", way_out=way_out)
        )
    adapter, state = {}, {}
    for name, tensor in file.tensors.items():
        if name.startswith(_ADAPTER):
            adapter[name.removeprefix(_ADAPTER)] = tensor
        else:
            parameter, _, key = name.removeprefix(_STATE).rpartition("/")
            state.setdefault(parameter, {})[key] = tensor
    adapted.load(adapter)
    _load_state(adapted, optimizer, state)
    return course


def sweep(folder: Path) -> None:
    """Remove what a run that was killed while it wrote has left behind."""
    for name in (WEIGHTS, CONFIG, RECORD, CHECKPOINT):
        for path in folder.glob(f".{name}.*.part"):
            path.unlink(missing_ok=True)


def holds_adapter(folder: Path) -> bool:
    """Tell whether there is an adapter in a folder."""
    return any((folder / name).exists() for name in (WEIGHTS, CONFIG, CHECKPOINT))


def differences(before: Any, now: Any, name: str = "") -> str:
    """Return what is not the same in two trees of plain types: names, and values from and to."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = dict.fromkeys((*before, *now))
        parts = (differences(before.get(key), now.get(key), str(key)) for key in keys)
        return ", ".join(part for part in parts if part)
    return "" if before == now else f"{name} ({_short(before)} → {_short(now)})"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _named_state(adapted: Adapted, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    names = {id(one): name for name, one in adapted.parameters.items()}
    return {names[id(parameter)]: values for parameter, values in optimizer.state.items()}


def _load_state(adapted: Adapted, optimizer: torch.optim.Optimizer, state: Mapping[str, Mapping[str, Tensor]]) -> None:
    parameters = adapted.parameters
    for name, values in state.items():
        place = parameters[name].device
        # AdamW counts its steps on the CPU.
        optimizer.state[parameters[name]] = {
            key: value.clone() if key == "step" else value.to(place, copy=True) for key, value in values.items()
        }
