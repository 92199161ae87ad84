from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from attlas.errors import ModelNotFound, StoreError
from attlas.models.weights import INDEX, SINGLE, fingerprint, weight_files


def _save(folder: Path, name: str = SINGLE, **tensors: torch.Tensor) -> Path:
    save_file(tensors or {"a": torch.arange(6.0)}, folder / name)
    return folder / name


def test_a_single_file_is_found_before_an_index(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("{}")
    single = _save(tmp_path)
    assert weight_files(tmp_path) == [single]


def test_an_index_lists_each_shard_once(tmp_path: Path) -> None:
    names = ["model-1.safetensors", "model-2.safetensors"]
    shards = [_save(tmp_path, name) for name in names]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": names[1], "b": names[0], "c": names[1]}}))
    assert weight_files(tmp_path) == shards


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    with pytest.raises(StoreError, match=r"weights file model-1.safetensors is missing"):
        weight_files(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "x", "b": 1}}'])
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(StoreError, match=r"wanted an index with a weight_map"):
        weight_files(tmp_path)


def test_a_folder_without_weights_says_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"wanted model.safetensors or model.safetensors.index.json, found neither"):
        weight_files(tmp_path)


def test_the_fingerprint_stays_and_changes_with_what_it_names(tmp_path: Path) -> None:
    large = torch.zeros(10_000)
    first = fingerprint(b"{}", [_save(tmp_path, a=large, b=torch.ones(3))])
    assert first == fingerprint(b"{}", [_save(tmp_path, a=large, b=torch.ones(3))])
    others = [
        fingerprint(b"{ }", [tmp_path / SINGLE]),
        fingerprint(b"{}", [_save(tmp_path, a=large, c=torch.ones(3))]),
        fingerprint(b"{}", [_save(tmp_path, a=large, b=torch.tensor([1.0, 1.0, 2.0]))]),
        fingerprint(b"{}", [_save(tmp_path, a=large + torch.eye(1, 10_000)[0], b=torch.ones(3))]),
        fingerprint(b"{}", [_save(tmp_path, a=large + torch.eye(1, 10_000).flip(1)[0], b=torch.ones(3))]),
    ]
    assert len({first, *others}) == 6
    assert len(first) == 16


def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    whole = _save(tmp_path).read_bytes()
    for length in range(len(whole)):
        (tmp_path / SINGLE).write_bytes(whole[:length])
        with pytest.raises(StoreError, match=r"not a (whole )?safetensors file"):
            fingerprint(b"", [tmp_path / SINGLE])


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"data_offsets": [0, 999]}}',
        b'{"a": {"data_offsets": [-8, 8]}}',
        b"\xff\xfe",
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(StoreError, match=r"not a (whole )?safetensors file"):
        fingerprint(b"", [tmp_path / SINGLE])


def test_a_header_of_any_size_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", 2**63) + bytes(16))
    with pytest.raises(StoreError, match=r"its header does not fit"):
        fingerprint(b"", [tmp_path / SINGLE])
