"""Efficient variants of attention: each gives a lazy matrix that can be asked like the exact one, and a way to run."""

from __future__ import annotations

from attlas.patterns.bigbird import BigBird
from attlas.patterns.block_sparse import BlockSparse
from attlas.patterns.dilated import Dilated
from attlas.patterns.features import Elu, Favor, FeatureMap, Features
from attlas.patterns.fitting import Fitted, fit_features
from attlas.patterns.full import Full
from attlas.patterns.global_tokens import GlobalTokens
from attlas.patterns.linear import Linear
from attlas.patterns.linear_state import LinearState
from attlas.patterns.low_rank import LowRank
from attlas.patterns.pattern import Pattern, Work
from attlas.patterns.registry import KINDS, from_settings
from attlas.patterns.vertical_slash import VerticalSlash
from attlas.patterns.window import SlidingWindow

__all__ = [
    "KINDS",
    "BigBird",
    "BlockSparse",
    "Dilated",
    "Elu",
    "Favor",
    "FeatureMap",
    "Features",
    "Fitted",
    "Full",
    "GlobalTokens",
    "Linear",
    "LinearState",
    "LowRank",
    "Pattern",
    "SlidingWindow",
    "VerticalSlash",
    "Work",
    "fit_features",
    "from_settings",
]
