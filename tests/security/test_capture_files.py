"""A capture file from a stranger: it opens as a whole capture, or is refused in one line, and nothing else."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import attlas
from attlas.capture.tensor_file import _seal
from attlas.testing.tiny_models import TINY_MODELS


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    tiny = next(tiny for tiny in TINY_MODELS if tiny.family == "Mistral")
    model = tiny.build()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(**tiny.inputs(length=9))
    return cap.save(tmp_path_factory.mktemp("captures") / "doc.attlas").read_bytes()


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: dict[str, Any], data: bytes, *, sealed: bool = True) -> bytes:
    """Write a header and its data as a file; a forger seals it anew."""
    if sealed:
        header["__metadata__"]["seal"] = _seal(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def refused(path: Path, content: bytes, *, check: bool = False) -> str:
    path.write_bytes(content)
    with pytest.raises(attlas.StoreError) as caught:
        attlas.open_capture(path, check=check)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_cut_off_anywhere(whole: bytes, tmp_path: Path) -> None:
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in [
        *range(0, 64),
        *range(64, header, 97),
        header - 1,
        header,
        header + 1,
        len(whole) // 2,
        len(whole) - 1,
    ]:
        refused(tmp_path / "doc.attlas", whole[:length])


def test_added_to(whole: bytes, tmp_path: Path) -> None:
    assert "added to" in refused(tmp_path / "doc.attlas", whole + b"\0")


def test_other_files(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "plain.safetensors")
    assert "another kind" in refused(tmp_path / "a", (tmp_path / "plain.safetensors").read_bytes())
    save_file({"a": torch.zeros(3)}, tmp_path / "meta.safetensors", metadata={"description": "{}"})
    assert "another kind" in refused(tmp_path / "a", (tmp_path / "meta.safetensors").read_bytes())
    for content in (b"", b"x", b"\x80\x04K\x01.", b"\0" * 100, b"\xff" * 100, b"[]", b"%PDF-1.7" + b"a" * 200):
        refused(tmp_path / "a", content)
    with pytest.raises(attlas.StoreError, match="no such file"):
        attlas.open_capture(tmp_path / "missing.attlas")
    with pytest.raises(attlas.StoreError, match="cannot be read"):
        attlas.open_capture(tmp_path)


def test_a_header_as_long_as_it_says_would_not_fit_in_memory(tmp_path: Path) -> None:
    refused(tmp_path / "a", struct.pack("<Q", 2**63) + b"{}" * 50)
    refused(tmp_path / "a", struct.pack("<Q", 2**40) + b"{}" * 50)


def test_a_header_nested_too_deep(tmp_path: Path) -> None:
    text = b"[" * 200_000 + b"]" * 200_000
    refused(tmp_path / "a", len(text).to_bytes(8, "little") + text)


def test_a_newer_version_is_refused_by_name(whole: bytes, tmp_path: Path) -> None:
    header, data = parts(whole)
    description = json.loads(header["__metadata__"]["description"])
    header["__metadata__"]["description"] = json.dumps({**description, "version": 2})
    assert "version 2; install a newer attlas" in refused(tmp_path / "a", join(header, data))
    header["__metadata__"]["description"] = json.dumps({**description, "version": "one"})
    refused(tmp_path / "a", join(header, data))


def test_a_changed_header_breaks_the_seal(whole: bytes, tmp_path: Path) -> None:
    header, data = parts(whole)
    header["__metadata__"]["description"] = header["__metadata__"]["description"].replace("0.5", "0.4")
    header["0.0.key"], header["0.0.query"] = header["0.0.query"], header["0.0.key"]
    assert "damaged or tampered" in refused(tmp_path / "a", join(header, data, sealed=False))


def test_changed_numbers_are_found_by_check_and_by_verify(whole: bytes, tmp_path: Path) -> None:
    header, data = parts(whole)
    begin, _ = header["0.0.key"]["data_offsets"]
    changed = bytearray(data)
    changed[begin + 100 : begin + 104] = struct.pack("<f", 7.5)
    path = tmp_path / "a"
    assert "0.0.key" in refused(path, join(header, bytes(changed)), check=True)
    opened = attlas.open_capture(path)
    assert opened.verify(None)[0] > 1e-2
    assert opened.verify(None)[1] < 1e-5


Forgery = Callable[[dict[str, Any]], None]


def described(change: Callable[[dict[str, Any]], Any]) -> Forgery:
    def forge(header: dict[str, Any]) -> None:
        description = json.loads(header["__metadata__"]["description"])
        change(description)
        header["__metadata__"]["description"] = json.dumps(description)

    return forge


FORGERIES: dict[str, Forgery] = {
    "overlapping tensors": lambda h: h.update({"0.0.key": dict(h["0.0.query"])}),
    "a gap": lambda h: h.pop("0.0.key"),
    "a negative size": lambda h: h["0.0.key"].update(shape=[-1, 2, 9, 8]),
    "a negative offset": lambda h: h["0.0.key"].update(data_offsets=[-4, 0]),
    "an absurd shape": lambda h: h["0.0.key"].update(shape=[2**40, 2**40]),
    "a shape of text": lambda h: h["0.0.key"].update(shape="abc"),
    "a fraction": lambda h: h["0.0.key"].update(shape=[1, 2, 9, 8.0]),
    "an unknown dtype": lambda h: h["0.0.key"].update(dtype="F8_E4M3"),
    "no dtype": lambda h: h["0.0.key"].pop("dtype"),
    "a tensor that is no entry": lambda h: h.update({"0.0.key": 7}),
    "key and query swapped": lambda h: h.update({"0.0.key": h["0.0.query"], "0.0.query": h["0.0.key"]}),
    "transposed": lambda h: h["0.0.key"].update(shape=h["0.0.key"]["shape"][::-1]),
    "no digests": lambda h: h["__metadata__"].pop("digests"),
    "digests that are no table": lambda h: h["__metadata__"].update(digests="[]"),
    "a description that is no table": lambda h: h["__metadata__"].update(description="7"),
    "a description that is not JSON": lambda h: h["__metadata__"].update(description="{"),
    "metadata that are no text": lambda h: h["__metadata__"].update(description=3),
    "no layers": described(lambda d: d.pop("layers")),
    "layers that are no list": described(lambda d: d.update(layers=3)),
    "a layer that is not there": described(lambda d: d["layers"][0].update(number=9)),
    "a layer without calls": described(lambda d: d["layers"][0].pop("calls")),
    "no provenance": described(lambda d: d.pop("provenance")),
    "an unknown provenance": described(lambda d: d["provenance"].update(extra=1)),
    "a scale of text": described(lambda d: d["layers"][0]["calls"][0].update(scale="x")),
    "a window of text": described(lambda d: d["layers"][0]["calls"][0].update(window="x")),
    "no name": described(lambda d: d["layers"][0]["calls"][0].pop("name")),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forger_who_seals_anew(name: str, whole: bytes, tmp_path: Path) -> None:
    header, data = parts(whole)
    FORGERIES[name](header)
    refused(tmp_path / "a", join(header, data))


@pytest.mark.parametrize(
    "change",
    [
        {"scale": float("nan")},
        {"softcap": -1.0},
        {"window": 0},
        {"window": -(2**70)},
    ],
)
def test_settings_that_no_matrix_has_are_refused_when_opened_or_asked(
    change: dict[str, Any], whole: bytes, tmp_path: Path
) -> None:
    header, data = parts(whole)
    described(lambda d: d["layers"][0]["calls"][0].update(change))(header)
    (tmp_path / "a").write_bytes(join(header, data))
    with pytest.raises(attlas.AttlasError):
        attlas.open_capture(tmp_path / "a")[0].to_dense()


def test_nothing_in_a_file_is_run(whole: bytes, tmp_path: Path) -> None:
    """There is nowhere for code to hide: names and texts come back as they are."""
    header, data = parts(whole)
    described(lambda d: d.update(text="__import__('os').system('true')", tokens=["<script>alert(1)</script>"]))(header)
    (tmp_path / "a").write_bytes(join(header, data))
    opened = attlas.open_capture(tmp_path / "a")
    assert opened.tokens == ["<script>alert(1)</script>"]
