from __future__ import annotations

import base64
import zlib

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from attlas.view.encoding import FLOOR, binned, from_codes, map_codes, packed, share_codes, to_codes


@given(st.lists(st.floats(2.0**FLOOR, 1.0), min_size=1))
def test_codes_are_never_more_than_half_a_step_off(numbers: list[float]) -> None:
    exact = np.array(numbers)
    found = from_codes(to_codes(torch.tensor(numbers, dtype=torch.float64)))
    assert np.abs(found / exact - 1).max() <= 2 ** (1 / 128) - 1 + 1e-9


def test_zero_stays_zero_and_what_is_too_small_becomes_it() -> None:
    assert to_codes(torch.tensor([0.0, 1e-30, 1.0])).tolist() == [0, 0, 2561]


def test_the_largest_entry_is_kept_above_the_mean() -> None:
    mean, peak = torch.tensor([0.0, 0.1, 0.1]), torch.tensor([0.0, 0.1 - 1e-9, 0.8])
    low, rise = map_codes(mean, peak)
    assert rise.tolist() == [0, 0, 192]
    assert from_codes(low + rise)[2] == np.exp2(round((np.log2(0.8) + 40) * 64) / 64 - 40)


def test_shares_are_whole_255ths() -> None:
    assert share_codes(torch.tensor([0.0, 1.0, 2.0]), 2.0).tolist() == [0, 128, 255]


def test_bins_are_means_cut_as_the_maps_are() -> None:
    found = binned(torch.arange(7.0).view(1, 7), 3)
    assert found.tolist() == [[0.5, 2.5, 5.0]]


def test_packing_splits_bytes_into_planes() -> None:
    planes = zlib.decompress(base64.b64decode(packed([np.array([[1, 258]], np.uint16), np.array([515], np.uint16)])))
    assert list(planes) == [1, 2, 3, 0, 1, 2]
