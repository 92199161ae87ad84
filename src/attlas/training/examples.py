"""Data to learn from: JSON Lines or plain text, cut into tokens, each of which is learnt or only read."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.models.document import read_text

FORMS = '{"text"}, {"prompt", "completion"} or {"messages"}'
_SHOWN = 8  # faulty lines that an error names
_DIGITS = 32

Source = str | Path | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    """One thing to learn.

    Parameters
    ----------
    ids : tuple of int
        Tokens.
    learnt : tuple of bool
        Whether each is learnt, or only read.
    """

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]


@dataclass(frozen=True)
class Examples:
    """What is learnt from.

    Parameters
    ----------
    items : tuple of Example
    source : str
        Where they come from.
    shortened : int
        How many did not fit and lost their end.
    """

    items: tuple[Example, ...]
    source: str = "a list"
    shortened: int = 0

    def __len__(self) -> int:
        return len(self.items)

    @property
    def tokens(self) -> int:
        """How many tokens are learnt."""
        return sum(sum(item.learnt[1:]) for item in self.items)

    @property
    def digest(self) -> str:
        """A hash of all tokens, and of which are learnt: the same data, and no other, has it."""
        hashed = hashlib.sha256()
        for item in self.items:
            hashed.update(repr((item.ids, [int(one) for one in item.learnt])).encode())
        return hashed.hexdigest()[:_DIGITS]

    def pick(self, indices: Sequence[int]) -> Examples:
        """Return some of them, in the order that is given."""
        return Examples(tuple(self.items[index] for index in indices), self.source, self.shortened)


def examples_of(lm: LanguageModel, source: Source, *, length: int = 512) -> Examples:
    """Read data and cut it into tokens.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokenizer is used.
    source : str, path or sequence of mapping
        A file whose name ends in ``.jsonl``, one JSON object a line; any other UTF-8 text, or ``"-"`` for standard
        input, which is cut into pieces of `length` tokens, all of them learnt; or objects like the lines of a file:

        * ``{"text"}``: all of it is learnt, and the end of text after it. A longer one makes several examples.
        * ``{"prompt", "completion"}``: the completion is learnt, and the end of text after it. They are one text; a
          space between them belongs to the completion, where most tokenizers have it.
        * ``{"messages"}``: a chat, written by the model's own template; the assistant's turns are learnt.
    length : int
        Tokens of an example at most. A completion or chat that is longer loses its end, and `Examples.shortened` counts
        it.

    Returns
    -------
    made : Examples
        In the order of the data.

    Raises
    ------
    DocumentError
        Lines are empty, no JSON, of no such form, or leave nothing to be learnt: their numbers and why.
    ArgumentError
        The model has no tokenizer, or no chat template for messages.
    """
    if lm.tokenizer is None:
        raise ArgumentError(complaint("lm", wanted="a model that reads text", got="one without a tokenizer"))
    if not isinstance(source, (str, Path)):
        return _from_objects(lm, enumerate(list(source), start=1), "a list", "item", length)
    if str(source).lower().endswith(".jsonl"):
        return _from_objects(lm, _lines(read_text(source)), str(source), "line", length)
    ids = _ids(lm, read_text(source))
    pieces = tuple(_all_learnt(ids[start : start + length]) for start in range(0, len(ids), length))
    return Examples(tuple(piece for piece in pieces if len(piece.ids) > 1), str(source))


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the number of each line and what stands in it; an `_UnreadableError` for what is no JSON."""
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line:
            return
        if not line.strip():
            yield number, _UnreadableError("is empty")
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError):
            yield number, _UnreadableError("is not JSON")


class _UnreadableError(ValueError):
    """Why something is no example."""


def _from_objects(
    lm: LanguageModel, objects: Iterator[tuple[int, Any]] | enumerate[Any], source: str, what: str, length: int
) -> Examples:
    items: list[Example] = []
    shortened, faults = 0, {}
    for number, entry in objects:
        try:
            made, cut = _examples(lm, entry, length)
        except _UnreadableError as fault:
            faults[number] = str(fault)
            continue
        items += made
        shortened += cut
    if faults:
        raise DocumentError(_refusal(source, what, faults))
    if not items:
        raise DocumentError(complaint("data", wanted=f"at least one of {FORMS}", got=f"none in {source}"))
    return Examples(tuple(items), source, shortened)


def _refusal(source: str, what: str, faults: Mapping[int, str]) -> str:
    shown = [f"{what} {number} {reason}" for number, reason in list(faults.items())[:_SHOWN]]
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return f"{source}: {'; '.join(shown)}{more}; wanted JSON objects, each {FORMS}"


def _examples(lm: LanguageModel, entry: Any, length: int) -> tuple[list[Example], int]:
    """Return what one object makes, and whether its end was cut off."""
    if isinstance(entry, _UnreadableError):
        raise entry
    if not isinstance(entry, Mapping):
        raise _UnreadableError("is no object")
    if "messages" in entry:
        parts = list(_turns(lm, entry["messages"]))
    elif "prompt" in entry and "completion" in entry:
        parts = [(_string(entry, "prompt"), False), (_string(entry, "completion"), True)]
    elif "text" in entry:
        ids = [*_ids(lm, _string(entry, "text")), *_end(lm)]
        return [_all_learnt(ids[start : start + length]) for start in range(0, len(ids) - 1, length)], 0
    else:
        raise _UnreadableError(f"has none of these forms, but {', '.join(sorted(map(str, entry))[:4]) or 'nothing'}")
    ids, learnt = _marked(lm, parts, special="messages" not in entry)
    if "messages" not in entry:
        ids, learnt = [*ids, *_end(lm)], [*learnt, *(True for _ in _end(lm))]
    if not any(learnt[1:length]):
        raise _UnreadableError(
            "leaves nothing to be learnt" if not any(learnt[1:]) else f"begins to be learnt after {length:,} tokens"
        )
    return [Example(tuple(ids[:length]), tuple(learnt[:length]))], int(len(ids) > length)


def _string(entry: Mapping[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str) or (not value.strip() and name != "prompt"):
        raise _UnreadableError(f"has no text as {name}")
    return value


def _turns(lm: LanguageModel, messages: Any) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a chat as the template writes them, and whether each is the assistant's."""
    if not getattr(lm.tokenizer, "chat_template", None):
        way_out = "give prompt and completion, or text"
        raise ArgumentError(
            complaint(
                "messages", wanted="a model with a chat template", got=f"{lm.name}, which has none", way_out=way_out
            )
        )
    fits = isinstance(messages, Sequence) and not isinstance(messages, str) and bool(messages)
    if not fits or not all(_is_message(one) for one in messages):
        raise _UnreadableError("has messages that are not a list of {role, content}")
    turns: list[Mapping[str, Any]] = list(messages)
    written = ""
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        asked = _rendered(lm, turns[:number], prompt=True)
        answered = _rendered(lm, turns[: number + 1], prompt=False)
        if not (asked.startswith(written) and answered.startswith(asked)):
            raise _UnreadableError("is a chat whose turns the template does not write one after another")
        yield asked[len(written) :], False
        yield answered[len(asked) :], True
        written = answered


def _is_message(one: Any) -> bool:
    return isinstance(one, Mapping) and all(isinstance(one.get(name), str) for name in ("role", "content"))


def _rendered(lm: LanguageModel, messages: Sequence[Mapping[str, Any]], *, prompt: bool) -> str:
    if not messages:
        return ""
    return lm.tokenizer.apply_chat_template(
        [dict(one) for one in messages], tokenize=False, add_generation_prompt=prompt
    )


def _ids(lm: LanguageModel, text: str) -> list[int]:
    """Return a text's tokens, those that the tokenizer puts in front included."""
    return _without_end(lm, list(lm.tokenizer(text, truncation=False, padding=False, verbose=False)["input_ids"]))


def _marked(lm: LanguageModel, parts: Sequence[tuple[str, bool]], *, special: bool) -> tuple[list[int], list[bool]]:
    """Return the tokens of the parts of a text, and whether each ends in a part that is learnt."""
    if not lm.tokenizer.is_fast:
        way_out = "give text"
        raise ArgumentError(
            complaint(
                "lm", wanted="a tokenizer that tells which characters a token covers", got="a slow one", way_out=way_out
            )
        )
    # What a template writes has its special tokens in it.
    encoded = lm.tokenizer(
        "".join(text for text, _ in parts),
        add_special_tokens=special,
        return_offsets_mapping=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    ends = list(accumulate(len(text) for text, _ in parts))
    ids = list(encoded["input_ids"])
    learnt = [end > start and parts[bisect_right(ends, end - 1)][1] for start, end in encoded["offset_mapping"]]
    kept = _without_end(lm, ids) if special else ids
    return kept, learnt[: len(kept)]


def _without_end(lm: LanguageModel, ids: list[int]) -> list[int]:
    """Leave out an end of text that the tokenizer adds by itself."""
    return ids[:-1] if ids and ids[-1] == lm.tokenizer.eos_token_id else ids


def _end(lm: LanguageModel) -> list[int]:
    """Return the token that ends a text, where the model has one."""
    end = lm.tokenizer.eos_token_id
    return [] if end is None else [end]


def _all_learnt(ids: Sequence[int]) -> Example:
    return Example(tuple(ids), (True,) * len(ids))
