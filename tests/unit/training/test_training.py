"""A run on the disk: the same again from the same seed, taken up bit for bit after a kill, whole whatever happens."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import peft
import pytest
import torch

import attlas
from attlas import _writing
from attlas.errors import ArgumentError, NonFiniteError, StoreError, UnsupportedModelError
from attlas.testing.tiny_models import TINY_MODELS
from attlas.training import LoraSettings, Targets, TrainingSettings, examples_of, train
from attlas.training.checkpoints import write_checkpoint
from attlas.training.losses import mean_loss
from teaching import facts, save_pupil

SMALL = LoraSettings(2, dropout=0.2)
SHORT = TrainingSettings(steps=10, batch=3, learning_rate=0.02, save_every=2, evaluate_every=4, held_out=0.25, seed=5)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def contents(folder: Path, *names: str) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names or ADAPTER}


def test_a_run_teaches_and_leaves_the_model_as_it_was(pupil, tmp_path):
    before = {name: one.clone() for name, one in pupil.model.state_dict().items()}
    settings = TrainingSettings(steps=60, batch=6, learning_rate=0.05, held_out=0.0, save_every=0)
    found = train(pupil, facts(6), tmp_path / "a", targets=Targets(("all",)), lora=LoraSettings(8), settings=settings)
    assert found.losses[-1] < 0.3 * found.losses[0]
    assert found.evaluations == ()
    assert found.gain is None
    assert all(torch.equal(one, before[name]) for name, one in pupil.model.state_dict().items())
    assert found.folder == str(tmp_path / "a")
    assert found.files == contents(tmp_path / "a")
    assert json.loads(json.dumps(found.as_dict()))["trainable"] == found.trainable
    assert found.provenance.settings["data"] == examples_of(pupil, facts(6)).digest
    opened = peft.PeftModel.from_pretrained(pupil.model, tmp_path / "a")
    ids = torch.tensor([pupil.tokenizer("c:")["input_ids"]])
    answer = opened.generate(input_ids=ids, max_new_tokens=2, do_sample=False, pad_token_id=0)[0, 2:]
    assert pupil.tokenizer.decode(answer) == " h"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(pupil, tmp_path):
    one, two, other = (
        train(pupil, facts(), lora=SMALL, settings=TrainingSettings(steps=4, batch=3, seed=seed)) for seed in (1, 1, 2)
    )
    assert one.files == two.files
    assert one.losses == two.losses
    assert one.files["adapter_model.safetensors"] != other.files["adapter_model.safetensors"]


@pytest.mark.parametrize("lora", [SMALL, LoraSettings(2, variant="dora", init="pissa"), LoraSettings(2, init="eva")])
def test_a_run_that_is_taken_up_again_is_the_same_bit_for_bit(pupil, tmp_path, lora, monkeypatch):
    whole = train(pupil, facts(), tmp_path / "whole", lora=lora, settings=SHORT)
    import attlas.training.training as module

    real = write_checkpoint

    def dying(folder, adapted, course, *rest):
        real(folder, adapted, course, *rest)
        if course.step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_checkpoint", dying)
    with pytest.raises(KeyboardInterrupt):
        train(pupil, facts(), tmp_path / "cut", lora=lora, settings=SHORT)
    monkeypatch.undo()
    found = train(pupil, facts(), tmp_path / "cut", lora=lora, settings=SHORT, resume=True)
    assert found.resumed_at == 6
    assert found.losses == whole.losses
    assert found.evaluations == whole.evaluations
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    again = train(pupil, facts(), tmp_path / "cut", lora=lora, settings=SHORT, resume=True)
    assert again.resumed_at == 10
    assert again.files == whole.files


def test_a_killed_run_is_taken_up_again_bit_for_bit(pupil, pupil_folder, tmp_path):
    settings = TrainingSettings(steps=40, batch=3, learning_rate=0.02, save_every=1, evaluate_every=7, seed=5)
    script = tmp_path / "run.py"
    script.write_text(
        f"""
import sys, time
import attlas
from attlas.training import LoraSettings, TrainingSettings, train
from teaching import facts
settings = TrainingSettings(**{settings.as_dict()!r})
lm = attlas.load({str(pupil_folder)!r})
slowly = lambda *_: time.sleep(0.05)
train(lm, facts(), sys.argv[1], lora=LoraSettings(2, dropout=0.2), settings=settings, progress=slowly)
""",
        encoding="utf-8",
    )
    whole = train(pupil, facts(), tmp_path / "whole", lora=SMALL, settings=settings)
    folder = tmp_path / "cut"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    killed = subprocess.Popen([sys.executable, script, folder], env=environment)
    record = folder / "training.json"
    until = time.monotonic() + 100
    while not record.exists() or json.loads(record.read_text())["step"] < 5:
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(timeout=100) == -signal.SIGKILL
    assert contents(folder) != contents(tmp_path / "whole")
    (folder / ".checkpoint.safetensors.0123456789abcdef.part").write_bytes(b"half")  # a kill can come while it writes
    found = train(pupil, facts(), folder, lora=SMALL, settings=settings, resume=True)
    assert {path.name for path in folder.iterdir()} == {*ADAPTER, "training.json", "checkpoint.safetensors"}
    # The checkpoint takes its place last: the kill may come when the record beside it is newer already.
    assert 4 <= found.resumed_at < 40
    assert found.losses == whole.losses
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_run_with_other_choices_is_not_taken_up(pupil, tmp_path):
    train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT)
    changed = TrainingSettings(**{**SHORT.as_dict(), "learning_rate": 0.01, "batch": 4})
    before = contents(tmp_path / "a", *ADAPTER, "checkpoint.safetensors")
    with pytest.raises(
        ArgumentError, match=r"got other batch \(3 → 4\), learning_rate \(0.02 → 0.01\); take them up again"
    ):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=changed, resume=True)
    with pytest.raises(ArgumentError, match="other data "):
        train(pupil, facts(11), tmp_path / "a", lora=SMALL, settings=SHORT, resume=True)
    with pytest.raises(ArgumentError, match=r'other projections \(\["query", "value"\] → \["query"\]\)'):
        train(pupil, facts(), tmp_path / "a", targets=Targets(("query",)), lora=SMALL, settings=SHORT, resume=True)
    other = attlas.load(save_pupil(tmp_path / "other", seed=1))
    with pytest.raises(ArgumentError, match="other model "):
        train(other, facts(), tmp_path / "a", lora=SMALL, settings=SHORT, resume=True)
    assert contents(tmp_path / "a", *ADAPTER, "checkpoint.safetensors") == before


def test_an_adapter_is_not_overwritten_by_a_new_run(pupil, tmp_path):
    train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=TrainingSettings(steps=1))
    with pytest.raises(ArgumentError, match="out: wanted a folder without an adapter"):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=TrainingSettings(steps=1))
    (tmp_path / "a" / "checkpoint.safetensors").unlink()
    with pytest.raises(ArgumentError, match="out: wanted a folder without an adapter"):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=TrainingSettings(steps=1), resume=True)


def test_there_has_to_be_a_place_to_go_on_from(pupil, tmp_path):
    with pytest.raises(ArgumentError, match="resume: wanted a folder"):
        train(pupil, facts(), resume=True)
    found = train(pupil, facts(), tmp_path / "new", lora=SMALL, settings=TrainingSettings(steps=1), resume=True)
    assert found.resumed_at == 0
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="wanted a folder for the adapter, got a file"):
        train(pupil, facts(), tmp_path / "file", lora=SMALL)


def test_a_damaged_checkpoint_is_refused(pupil, tmp_path):
    train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT)
    path = tmp_path / "a" / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not those that were saved"):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT, resume=True)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"checkpoint\.safetensors"):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT, resume=True)


def test_a_loss_that_is_no_number_keeps_the_last_checkpoint(pupil, tmp_path, monkeypatch):
    import attlas.training.fitting as module

    real, calls = mean_loss, []

    def poisoned(*rest):
        calls.append(1)
        return real(*rest) * (float("nan") if len(calls) == 8 else 1)

    monkeypatch.setattr(module, "mean_loss", poisoned)
    with pytest.raises(
        NonFiniteError, match=r"step 8: wanted a finite loss, got a loss of nan; .*holds the adapter of step 6"
    ):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT)
    assert json.loads((tmp_path / "a" / "training.json").read_text())["step"] == 6
    monkeypatch.undo()
    peft.PeftModel.from_pretrained(attlas.load(save_pupil(tmp_path / "base")).model, tmp_path / "a")


def test_a_full_disk_leaves_the_old_adapter_whole(pupil, tmp_path, monkeypatch):
    real, calls = _writing._staged, []

    def full(path, content):
        calls.append(path.name)
        if len(calls) > 4 and path.name == "checkpoint.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(_writing, "_staged", full)
    with pytest.raises(
        StoreError, match=r"checkpoint\.safetensors: cannot be written \(No space left on device\); free some"
    ):
        train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT)
    monkeypatch.undo()
    assert json.loads((tmp_path / "a" / "training.json").read_text())["step"] == 2
    assert len(list((tmp_path / "a").iterdir())) == 4
    two = train(pupil, facts(), lora=SMALL, settings=SHORT)
    found = train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT, resume=True)
    assert found.resumed_at == 2
    assert found.files == two.files


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="only POSIX systems bound a file's size")
def test_a_file_that_may_not_grow_leaves_the_old_adapter_whole(pupil, tmp_path):
    import resource

    train(pupil, facts(), tmp_path / "a", lora=SMALL, settings=SHORT)
    before = contents(tmp_path / "a", *ADAPTER, "training.json", "checkpoint.safetensors")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "b").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            train(pupil, facts(), tmp_path / "b", lora=SMALL, settings=SHORT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "b").iterdir()) == []
    assert contents(tmp_path / "a", *ADAPTER, "training.json", "checkpoint.safetensors") == before
    assert not any(hasattr(module, "base_layer") for module in pupil.model.modules())


def test_what_predicts_no_next_token_is_refused(pupil):
    from dataclasses import replace

    bert = next(model for model in TINY_MODELS if model.family == "BERT").build()
    with pytest.raises(UnsupportedModelError, match="wanted a model that predicts the next token, got BertModel"):
        train(replace(pupil, model=bert), facts())


def test_held_out_examples_can_be_a_file(pupil, tmp_path):
    path = tmp_path / "held.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in facts(3)), encoding="utf-8")
    settings = TrainingSettings(steps=2, batch=2, held_out=str(path))
    found = train(pupil, facts(), lora=SMALL, settings=settings)
    assert (found.examples, found.held_out) == (12, 3)
    assert found.gain == pytest.approx(found.evaluations[0][1] - found.evaluations[-1][1])
