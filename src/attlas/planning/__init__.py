"""Plans: a pattern for every head, kept in a file, and run in the place of a model's own attention."""

from __future__ import annotations

from attlas.planning.dispatch import Applied, Kept
from attlas.planning.plan import Expected, Plan, open_plan
from attlas.planning.subject import Subject

__all__ = ["Applied", "Expected", "Kept", "Plan", "Subject", "open_plan"]
