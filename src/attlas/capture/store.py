"""Captures on disk: one safetensors file, written atomically, memory-mapped on opening, sealed against tampering.

The header's metadata hold a description of the layers, a digest of each tensor's bytes and a seal over the header
itself. Opening reads and checks the header alone, whatever the file's size; the tensors' digests are checked on
request.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attlas.capture.layer import Layer
from attlas.capture.packed import PackedMask, pack
from attlas.capture.probe import DIRECTIONS, Probe
from attlas.capture.result import Capture
from attlas.capture.tensor_file import StoredFile, read_file, write_file
from attlas.capture.visibility import Rule
from attlas.errors import StoreError
from attlas.matrix import RelativeBias
from attlas.results import Provenance

FORMAT = "attlas capture"
VERSION = 1


def save_capture(capture: Capture, path: str | PathLike[str]) -> Path:
    """Write a capture to one file; `Capture.save` says how.

    Returns
    -------
    Path
        Where it lies.
    """
    tensors: dict[str, Tensor] = {}
    layers = []
    for number, calls in capture.stored_layers().items():
        described = [_describe(layer, f"{number}.{turn}", tensors) for turn, layer in enumerate(calls)]
        layers.append({"number": number, "calls": described})
    description = {
        "format": FORMAT,
        "version": VERSION,
        "provenance": capture.provenance.as_dict(),
        "tokens": capture.tokens,
        "text": capture.text,
        "unrouted": capture.unrouted,
        "layers": layers,
    }
    return write_file(Path(fspath(path)), tensors, description)


def open_capture(path: str | PathLike[str], check: bool = False) -> Capture:
    """Open a capture that was saved.

    Parameters
    ----------
    path : path
        The file.
    check : bool
        Read every tensor and compare it with its digest. Without it the file is only mapped, which takes milliseconds
        whatever its size, and `Capture.verify` still notices a matrix that is not the model's own.

    Raises
    ------
    StoreError
        The file is missing, truncated, of another kind or of a newer version, inconsistent or tampered with.
    """
    stored = read_file(Path(fspath(path)), check=check)
    description = stored.description
    if description.get("format") != FORMAT:
        raise StoreError(f"{stored.path}: wanted an attlas capture, got a safetensors file of another kind")
    version = description.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        way_out = "; install a newer attlas" if newer else ""
        raise StoreError(f"{stored.path}: wanted a capture of version {VERSION}, got version {version!r}{way_out}")
    try:
        return _capture(stored)
    # Whatever a forged description leaves out or twists ends in one of these.
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        raise StoreError(f"{stored.path}: its description does not fit its tensors ({error})") from error


class _Stored:
    """A layer that lies in a file."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def layer(self) -> Layer:
        return self._layer


def _capture(stored: StoredFile) -> Capture:
    description = stored.description
    sources = {
        int(entry["number"]): [
            _Stored(_layer(call, f"{entry['number']}.{turn}", stored.tensors))
            for turn, call in enumerate(entry["calls"])
        ]
        for entry in description["layers"]
    }
    return Capture(
        sources,
        provenance=Provenance(**description["provenance"]),
        tokens=description["tokens"],
        text=description["text"],
        unrouted=description["unrouted"],
    )


def _describe(layer: Layer, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Put a layer's tensors into `tensors`, and return the rest of it as plain types."""
    parts = {
        "query": layer.query,
        "key": layer.key,
        "sinks": layer.sinks,
        "lse": layer.lse,
        "probe_values": layer.probe.values,
        "probe_output": layer.probe.output,
        "values": layer.values,
        "output": layer.output,
    }
    described: dict[str, Any] = {
        "name": layer.name,
        "scale": layer.scale,
        "softcap": layer.softcap,
        "causal": layer.rule.causal,
        "window": layer.rule.window,
        "precision": layer.probe.precision,
        "score_precision": layer.probe.score_precision,
    }
    if layer.rule.mask is not None:
        if layer.rule.structured:
            parts["padding"] = layer.rule.mask if isinstance(layer.rule.mask, Tensor) else None
        elif isinstance(layer.rule.mask, PackedMask):
            parts["mask_bits"] = layer.rule.mask.bits
        else:
            parts["mask_bits"] = _bits(layer)
    if isinstance(layer.bias, RelativeBias):
        parts["bias_table"] = layer.bias.table
        described["bias_lowest"] = layer.bias.lowest
    else:
        parts["bias"] = layer.bias
    tensors.update({f"{prefix}.{part}": tensor for part, tensor in parts.items() if tensor is not None})
    return described


def _bits(layer: Layer) -> Tensor:
    mask = layer.rule.mask
    batch, heads = mask.shape[:2] if isinstance(mask, Tensor) else mask.extent if mask is not None else (1, 1)
    return pack(layer.rule, batch, heads, layer.query.shape[2], layer.key.shape[2], layer.query.device)


def _layer(described: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]) -> Layer:
    def part(name: str) -> Tensor | None:
        return tensors.get(f"{prefix}.{name}")

    query, key = tensors[f"{prefix}.query"], tensors[f"{prefix}.key"]
    batch, head, n_query, dim = query.shape
    kv_head, n_key = key.shape[1], key.shape[2]
    _expect(head % kv_head == 0, f"{head} heads over {kv_head} key heads")
    wanted = {"key": (batch, kv_head, n_key, dim), "lse": (batch, head, n_query), "sinks": (head,)}
    wanted["probe_values"] = (batch, kv_head, n_key, DIRECTIONS)
    for name, shape in wanted.items():
        found = part(name)
        _expect(found is None or tuple(found.shape) == shape, f"{prefix}.{name} is not of shape {shape}")
    probe = Probe(
        tensors[f"{prefix}.probe_values"],
        tensors[f"{prefix}.probe_output"],
        float(described["precision"]),
        float(described["score_precision"]),
    )
    shown = probe.output.shape
    _expect(
        tuple(shown) in {(batch, head, n_query, DIRECTIONS), (batch, 1, n_query, DIRECTIONS)},
        f"{prefix}.probe_output is not of the query's shape",
    )
    bits, padding, table = part("mask_bits"), part("padding"), part("bias_table")
    if bits is not None:
        sizes = zip(bits.shape, (batch, head, n_query, -(-n_key // 8)), strict=True)
        _expect(
            bits.dtype == torch.uint8 and all(size in (1, full) for size, full in sizes),
            f"{prefix}.mask_bits does not fit",
        )
        _expect(bits.shape[3] == -(-n_key // 8), f"{prefix}.mask_bits does not cover every key")
    if padding is not None:
        _expect(
            padding.dtype == torch.bool and tuple(padding.shape) in {(batch, 1, 1, n_key), (1, 1, 1, n_key)}, "padding"
        )
    window = described["window"]
    return Layer(
        name=str(described["name"]),
        query=query,
        key=key,
        scale=float(described["scale"]),
        rule=Rule(
            bool(described["causal"]),
            None if window is None else int(window),
            padding if bits is None else PackedMask(bits, n_query, n_key),
        ),
        bias=part("bias") if table is None else RelativeBias(table, int(described["bias_lowest"])),
        softcap=None if described["softcap"] is None else float(described["softcap"]),
        sinks=part("sinks"),
        lse=part("lse"),
        probe=probe,
        values=part("values"),
        output=part("output"),
    )


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
