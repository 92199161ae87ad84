from __future__ import annotations

import numpy as np
import pytest

from attlas.view.colours import NAMES, _to_oklab, colour_table


@pytest.mark.parametrize("name", NAMES)
def test_equal_steps_look_equal(name: str) -> None:
    lab = _to_oklab(colour_table(name).astype(np.int64))
    steps = np.linalg.norm(np.diff(lab[::8], axis=0), axis=-1)
    assert steps.min() > 0.015, "neighbours can be told apart"
    assert steps.max() < 0.09, "no jump looks like an edge in the data"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("weight")])
def test_weights_run_from_the_ground_to_one_end(name: str) -> None:
    lightness = _to_oklab(colour_table(name).astype(np.int64))[:, 0]
    assert (np.diff(lightness[::8]) < 0).all() or (np.diff(lightness[::8]) > 0).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("lift")])
def test_lift_is_neutral_in_the_middle(name: str) -> None:
    lab = _to_oklab(colour_table(name).astype(np.int64))
    assert np.linalg.norm(lab[127:129, 1:], axis=-1).max() < 0.02
    assert lab[40, 2] < -0.05, "less is blue"
    assert lab[215, 1] > 0.05, "more is red"
