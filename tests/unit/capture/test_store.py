"""A saved capture is the same capture, whatever it is made of, in one file that any safetensors reader opens."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import attlas
from attlas.capture.store import VERSION
from attlas.matrix import RelativeBias
from attlas.testing.tiny_models import TINY_MODELS

BY_FAMILY = {tiny.family: tiny for tiny in TINY_MODELS}


def captured(family: str, **options: Any) -> attlas.Capture:
    tiny = BY_FAMILY[family]
    model = tiny.build()
    inputs = tiny.inputs(batch=2)
    if tiny.reads_text:
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["attention_mask"][0, :4] = 0
    with torch.no_grad(), attlas.capture(model, **options) as cap:
        model(**inputs)
    return cap


def packed() -> attlas.Capture:
    """Return a capture whose rule is a predicate."""
    model: Any = BY_FAMILY["Llama"].build()
    positions = torch.cat([torch.arange(8), torch.arange(11)])[None]
    with torch.no_grad(), attlas.capture(model) as cap:
        model(torch.randint(5, 90, (1, 19)), position_ids=positions, use_cache=False)
    return cap


def own_mask() -> attlas.Capture:
    """Return a capture with a dense mask of the caller's, one for each head."""
    model: Any = BY_FAMILY["Llama"].build()
    mask = (torch.rand(2, 4, 19, 19, generator=torch.Generator().manual_seed(0)) > 0.5) | torch.eye(19).bool()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(torch.randint(5, 90, (2, 19)), attention_mask=mask)
    return cap


def assert_same(one: attlas.Capture, other: attlas.Capture) -> None:
    assert one.layers == other.layers
    assert one.names == other.names
    assert one.tokens == other.tokens
    assert one.text == other.text
    assert one.unrouted == other.unrouted
    assert one.provenance == other.provenance
    for number in one.layers:
        for A, B in zip(one.calls(number), other.calls(number), strict=True):
            assert torch.equal(A.to_dense(), B.to_dense())
            assert torch.equal(A.valid_rows, B.valid_rows)


FAMILIES = "Llama, Mistral, Gemma 2, gpt-oss, T5, BART, BERT, ModernBERT, ViT, CLIP, DeepSeek-V3, SigLIP, BEiT".split(
    ", "
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_capture_is_the_same(family: str, tmp_path: Path) -> None:
    cap = captured(family)
    assert cap.save(tmp_path / "doc.attlas") == tmp_path / "doc.attlas"
    opened = attlas.open_capture(tmp_path / "doc.attlas", check=True)
    assert_same(cap, opened)
    assert opened.verify(None) == cap.verify(None)
    assert os.listdir(tmp_path) == ["doc.attlas"]


@pytest.mark.parametrize("make", [packed, own_mask])
def test_a_mask_without_structure_is_saved_as_bits_and_saved_again(make: Any, tmp_path: Path) -> None:
    cap = make()
    opened = attlas.open_capture(cap.save(tmp_path / "one.attlas"))
    assert_same(cap, opened)
    again = attlas.open_capture(opened.save(tmp_path / "two.attlas"))
    assert_same(cap, again)
    assert max(again.verify(None).values()) < 1e-5
    with safe_open(tmp_path / "one.attlas", framework="pt") as file:
        bits = file.get_tensor("0.0.mask_bits")
        assert bits.dtype == torch.uint8
        assert bits.shape[-2:] == (19, 3)


def test_values_output_tokens_and_text_are_saved_too(tmp_path: Path) -> None:
    cap = captured("Llama", values=True, output=True)
    text = "héllo </script>\n\ud800"
    cap = cap.of_document(text, ["hé", "llo"], model="m", fingerprint="abc")
    opened = attlas.open_capture(cap.save(tmp_path / "doc.attlas"))
    assert_same(cap, opened)
    assert torch.equal(opened.values(1), cap.values(1))
    assert torch.equal(opened.output(1), cap.output(1))
    assert opened.provenance.fingerprint == "abc"
    assert opened.text == text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype(dtype: torch.dtype, tmp_path: Path) -> None:
    cap = captured("Llama", dtype=dtype)
    opened = attlas.open_capture(cap.save(tmp_path / "doc.attlas"), check=True)
    assert_same(cap, opened)
    assert opened[0].dtype == dtype


def test_all_calls_of_a_layer_are_saved(tmp_path: Path) -> None:
    model, tiny = BY_FAMILY["Llama"].build(), BY_FAMILY["Llama"]
    with torch.no_grad(), attlas.capture(model) as cap:
        model(**tiny.inputs())
        model(**tiny.inputs(batch=2, length=5))
    opened = attlas.open_capture(cap.save(tmp_path / "doc.attlas"))
    assert [tuple(A.shape) for A in opened.calls(0)] == [(1, 4, 19, 19), (2, 4, 5, 5)]
    assert_same(cap, opened)


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    cap = captured("Llama")
    with safe_open(cap.save(tmp_path / "doc.attlas"), framework="pt") as file:
        assert torch.equal(file.get_tensor("1.0.key"), cap[1].key)
        description = json.loads(file.metadata()["description"])
    assert description["version"] == VERSION
    assert description["layers"][0]["calls"][0]["causal"] is True


def test_opening_reads_the_header_alone(tmp_path: Path) -> None:
    """100 MB open about as fast as 100 kB, because nothing of them is read."""
    cap = captured("Llama")
    path = cap.save(tmp_path / "doc.attlas")
    opened = attlas.open_capture(path)
    assert opened[0].query.untyped_storage().nbytes() == path.stat().st_size, "mapped, not copied"


def test_writing_to_an_opened_capture_does_not_change_the_file(tmp_path: Path) -> None:
    path = captured("Llama").save(tmp_path / "doc.attlas")
    before = path.read_bytes()
    attlas.open_capture(path)[0].query.zero_()
    assert path.read_bytes() == before


def test_a_file_that_only_may_be_read_opens(tmp_path: Path) -> None:
    path = captured("Llama").save(tmp_path / "doc.attlas")
    path.chmod(0o444)
    attlas.open_capture(path, check=True)


def test_saving_over_an_older_file_replaces_it_and_keeps_open_ones_valid(tmp_path: Path) -> None:
    path = captured("Llama").save(tmp_path / "doc.attlas")
    old = attlas.open_capture(path)
    dense = old[0].to_dense()
    captured("Mistral").save(path)
    assert torch.equal(old[0].to_dense(), dense)
    assert attlas.open_capture(path).provenance.model == "MistralForCausalLM"
    # An opened capture may be saved over the very file that it lies in.
    attlas.open_capture(path).save(path)
    assert max(attlas.open_capture(path, check=True).verify(None).values()) < 1e-4


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    cap = captured("Llama")
    with pytest.raises(attlas.StoreError, match="got a folder"):
        cap.save(tmp_path)
    with pytest.raises(attlas.StoreError, match="choose a folder"):
        cap.save(tmp_path / "missing" / "doc.attlas")
    with pytest.raises(attlas.StoreError, match="cannot be written"):
        cap.save("/proc/doc.attlas")


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = captured("Llama").save(tmp_path / "doc.attlas")
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        attlas.StoreError, match=r"doc\.attlas: cannot be written \(No space left on device\); free some space"
    ):
        captured("Mistral").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["doc.attlas"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_whatever_interrupts_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = captured("Llama").save(tmp_path / "doc.attlas")
    before = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(error):
        captured("Mistral").save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["doc.attlas"]


_WRITER = """
import sys, torch
from pathlib import Path
from attlas.capture.tensor_file import write_file
path = Path(sys.argv[1])
tensors = {str(i): torch.full((1 << 18,), float(i)) for i in range(24)}
write_file(path, tensors, {"generation": 0})
print("ready", flush=True)
generation = 0
while True:
    generation += 1
    write_file(path, tensors, {"generation": generation})
"""


def test_a_kill_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    from attlas.capture.tensor_file import read_file

    path = tmp_path / "doc.attlas"
    seen = set()
    for attempt in range(4):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.037 * attempt)
        process.kill()
        process.wait()
        process.stdout.close()
        stored = read_file(path, check=True)
        assert len(stored.tensors) == 24
        seen.add(stored.description["generation"])
    assert seen


def test_a_capture_on_disk_is_saved_like_any(tmp_path: Path) -> None:
    tiny = BY_FAMILY["Llama"]
    model = tiny.build()
    with torch.no_grad(), attlas.capture(model, disk=tmp_path / "scratch") as cap:
        model(**tiny.inputs())
    assert_same(cap, attlas.open_capture(cap.save(tmp_path / "doc.attlas"), check=True))


def test_a_table_of_offsets_stays_a_table(tmp_path: Path) -> None:
    cap = captured("T5")
    opened = attlas.open_capture(cap.save(tmp_path / "doc.attlas"))
    bias, same = cap[0].bias, opened[0].bias
    assert isinstance(bias, RelativeBias)
    assert isinstance(same, RelativeBias)
    assert torch.equal(bias.table, same.table)
