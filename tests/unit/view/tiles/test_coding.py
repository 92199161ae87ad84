from __future__ import annotations

import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import ArgumentError
from attlas.view.tiles.coding import maps_bytes, maps_of, tile_bytes, tile_of, vectors_bytes, vectors_of

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def tiles(draw: st.DrawFn) -> torch.Tensor:
    rows, cols = draw(SHAPES)
    numbers = st.floats(-(2.0**20), 2.0**20, width=32) | st.floats(-(2.0**-100), 2.0**-100, width=32) | st.just(0.0)
    return torch.tensor(draw(st.lists(numbers, min_size=rows * cols, max_size=rows * cols))).view(rows, cols)


@given(tiles())
def test_single_precision_comes_back_to_the_last_bit(values: torch.Tensor) -> None:
    assert torch.equal(tile_of(tile_bytes(values)), values)


@given(tiles())
def test_half_precision_is_as_near_as_promised(values: torch.Tensor) -> None:
    content = tile_bytes(values, "f16")
    assert len(content) == 16 + 2 * values.numel()
    back = tile_of(content).double()
    largest = values.double().abs().max()
    allowed = torch.maximum(values.double().abs() * 2**-11, largest * 2**-25)
    # The product itself is rounded to single precision once.
    assert bool(((back - values).abs() <= allowed * (1 + 1e-6) + back.abs() * 2**-24 + 1e-45).all())
    at = values.abs().argmax()
    assert back.flatten()[at] == values.flatten()[at].double()


def test_where_there_is_no_number_there_is_none_afterwards() -> None:
    values = torch.tensor([[float("nan"), 2.0], [-4.0, 0.5]])
    for kind in ("f16", "f32"):
        torch.testing.assert_close(tile_of(tile_bytes(values, kind)), values, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(maps_of(maps_bytes(values[None])), values[None], rtol=0, atol=0, equal_nan=True)


def test_the_header_is_what_the_page_reads() -> None:
    content = tile_bytes(torch.tensor([[0.0, -8.0, 4.0]]), "f16")
    assert struct.unpack_from("<4sBBHHHf", content) == (b"ATL1", 2, 0, 1, 3, 0, 8.0)
    assert struct.unpack_from("<3e", content, 16) == (0.0, -1.0, 0.5)
    content = vectors_bytes([torch.ones(2)])
    assert struct.unpack_from("<4sBBHIf", content) == (b"ATLV", 1, 0, 1, 2, 1.0)


def test_each_of_several_maps_is_as_near_as_a_tile() -> None:
    values = torch.stack([torch.rand(3, 5) * size for size in (1e-6, 1.0, 4e5, 0.0)])
    content = maps_bytes(values)
    assert struct.unpack_from("<4sBBHHHf4f", content)[:8] == (b"ATLM", 2, 0, 3, 5, 4, 1.0, float(values[0].max()))
    assert len(content) == 16 + 4 * 4 + 2 * values.numel()
    assert torch.equal(maps_of(content), torch.stack([tile_of(tile_bytes(one, "f16")) for one in values]))
    assert torch.equal(maps_of(maps_bytes(maps_of(content))), maps_of(content))


def test_what_is_no_maps_is_refused() -> None:
    content = maps_bytes(torch.ones(2, 2, 2))
    for wrong in (
        content[:3],
        content[:-1],
        content + b"\0",
        tile_bytes(torch.ones(2, 2)),
        content[:4] + b"\x01" + content[5:],
    ):
        with pytest.raises(ArgumentError, match="content: wanted"):
            maps_of(wrong)


def test_vectors_are_padded_to_one_length() -> None:
    found = vectors_of(vectors_bytes([torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0])]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 2, 3], [4, float("nan"), float("nan")]]), equal_nan=True)


def test_long_vectors_fit() -> None:
    assert vectors_of(vectors_bytes([torch.zeros(70_000)])).shape == (1, 70_000)


@pytest.mark.parametrize("cut", [0, 3, 15, 17])
def test_what_is_no_tile_is_refused(cut: int) -> None:
    content = tile_bytes(torch.ones(2, 2))
    for wrong in (content[:cut], content + b"\0", b"ATL2" + content[4:], content[:4] + b"\x07" + content[5:]):
        with pytest.raises(ArgumentError, match="content: wanted"):
            tile_of(wrong)
    with pytest.raises(ArgumentError, match="content: wanted"):
        vectors_of(content)
