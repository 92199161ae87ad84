"""The colours of maps: interpolated in Oklab, so that equal steps of a number look like equal steps.

Lift is a ratio, so its scale has a middle: neutral at 1, blue below, red above. Weights and their logarithms run from
the page's own ground to one strong end. Each exists for a light and for a dark page.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_ANCHORS = {
    "lift-light": ("#123a7a", "#2f6fba", "#84b1dc", "#d3e1ee", "#f7f5f0", "#f8d9c4", "#ee9466", "#c93a2b", "#75091f"),
    "lift-dark": ("#0d2a5e", "#1d4685", "#3a629c", "#5c7899", "#84868b", "#b0846a", "#dc8848", "#fbae4d", "#fff0b4"),
    "weight-light": ("#f7f5f0", "#f6dcae", "#f0a667", "#d9584f", "#982670", "#471a68", "#150f36"),
    "weight-dark": ("#1d1d23", "#2f1f57", "#6d1f7f", "#b4376f", "#ec6650", "#fba95e", "#fcf3b8"),
}
NAMES = tuple(_ANCHORS)

# Björn Ottosson 2020, "A perceptual color space for image processing": linear sRGB -> cone response -> Oklab.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def colour_table(name: str, steps: int = 256) -> NDArray[np.uint8]:
    """Return a scale of colours; (steps, 3), sRGB.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    steps : int
        How many colours.
    """
    anchors = _to_oklab(np.array([_rgb(text) for text in _ANCHORS[name]]))
    at = np.linspace(0, len(anchors) - 1, steps)
    lab = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, i]) for i in range(3)], axis=-1)
    return _from_oklab(lab)


def _rgb(text: str) -> Sequence[int]:
    return tuple(bytes.fromhex(text[1:]))


def _to_oklab(rgb: NDArray[np.int_]) -> NDArray[np.float64]:
    x = rgb / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T


def _from_oklab(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = linear.clip(0, 1)
    x = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(x * 255).astype(np.uint8)
