"""Find out which heads of a model could attend more cheaply, run it that way, and see what that costs and gains."""

from __future__ import annotations

import bisect
import heapq
import inspect
import statistics

import torch

import attlas
from attlas.patterns import SlidingWindow

LENGTH = 256
"""Tokens of each text: few, so that this takes less than a minute. On real documents read thousands."""


def main() -> None:
    """Profile two texts, plan for an error, run the plan, and judge it by a third text."""
    lm = attlas.load("smollm2-135m")
    first, second, other = (inspect.getsource(module) for module in (bisect, heapq, statistics))

    candidates = [SlidingWindow(32, sinks=4), SlidingWindow(128, sinks=4)]
    profile = attlas.profile(lm, [first, second], candidates, length=LENGTH, aims=[0.03])
    # Costs are reckoned for long texts: on short ones nothing is cheaper than exact attention.
    plan = profile.plan(error=0.02, length=8192)
    print(plan, end="\n\n")

    ids = lm.tokenize(other).ids[: 2 * LENGTH]
    with torch.no_grad(), plan.applied(lm) as applied:
        lm.model(input_ids=torch.tensor([ids]))
    print(applied, end="\n\n")

    print(attlas.evaluate(lm, plan, [ids], needles=False, generate=0, timing=0, flips=False).summary)


if __name__ == "__main__":
    main()
