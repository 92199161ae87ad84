"""Prompts of which it is known what decides the answer; all words are the library's own."""

from __future__ import annotations

from attlas.explain.prompts.answering import Answered, answered
from attlas.explain.prompts.making import KINDS, LABELLED, prompts
from attlas.explain.prompts.prompt import Prompt

__all__ = ["KINDS", "LABELLED", "Answered", "Prompt", "answered", "prompts"]
