"""Haystacks: long texts in which nothing of importance happens, but for one fact that is asked for at the end.

Both tasks have the same question, the same length, and as many other values that could be taken for the right one. In
``"one fact"`` those stand in sentences of another kind: whoever finds the only fact has it. In ``"many facts"`` each is
a fact of its own about something else, so that the right one has to be told from the others by its key; what a head
keeps of a text has to be exact for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from attlas._words import ANIMALS, COLOURS, FOODS, filler
from attlas.capture import LanguageModel
from attlas.errors import ArgumentError, complaint

TASKS = ("one fact", "many facts")

RIVALS = 7
"""Other values in a haystack, so that one guess in eight is right."""

_PLACES = ("door", "gate", "box", "house", "room", "boat")
_MENTIONS = (
    "Nobody knew who had brought the {}.",
    "There was a picture of a {} on the wall.",
    "The children laughed about the {} all evening.",
    "Later they talked about {} again.",
)
_TRIES = 400
_SPARE = 8  # tokens by which joined sentences may differ from single ones


@dataclass(frozen=True)
class Grid:
    """Which haystacks are made.

    Parameters
    ----------
    lengths : tuple of int
        Tokens of a haystack, its question included; each is at most that long, and a sentence less at the least.
    depths : tuple of float
        Where the fact stands, from 0 (the text begins with it) to 1 (only the question follows).
    each : int
        Haystacks for each task, length and depth.
    tasks : tuple of str
        ``"one fact"``, ``"many facts"`` or both.

    Raises
    ------
    ArgumentError
        One of them makes no sense.
    """

    lengths: tuple[int, ...] = (512, 1024)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    each: int = 8
    tasks: tuple[str, ...] = TASKS

    def __post_init__(self) -> None:
        for name in ("lengths", "depths", "tasks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name):
                raise ArgumentError(complaint(name, wanted="at least one", got="none"))
        for length in self.lengths:
            if isinstance(length, bool) or not isinstance(length, int) or length < 1:
                raise ArgumentError(complaint("lengths", wanted="whole numbers of tokens", got=repr(length)))
        for depth in self.depths:
            if not (isinstance(depth, int | float) and 0 <= depth <= 1):
                raise ArgumentError(complaint("depths", wanted="numbers from 0 to 1", got=repr(depth)))
        if isinstance(self.each, bool) or not isinstance(self.each, int) or self.each < 1:
            raise ArgumentError(complaint("each", wanted="a whole number from 1", got=repr(self.each)))
        for task in self.tasks:
            if task not in TASKS:
                raise ArgumentError(complaint("tasks", wanted=" or ".join(map(repr, TASKS)), got=repr(task)))

    def __len__(self) -> int:
        return len(self.tasks) * len(self.lengths) * len(self.depths) * self.each

    def cells(self) -> Iterator[tuple[str, int, float]]:
        """Yield each task, length and depth."""
        for task in self.tasks:
            for length in self.lengths:
                for depth in self.depths:
                    yield task, length, depth


@dataclass(frozen=True)
class Haystack:
    """A text with a planted fact and its question.

    Parameters
    ----------
    task : str
        Of which task.
    length : int
        Of which length it was asked for; it has about as many tokens.
    depth : float
        Where in it the fact was asked for.
    text : str
        What the model reads; it ends where the answer begins.
    ids : tuple of int
        Its tokens.
    answer : tuple of int
        Tokens of the right value.
    others : tuple of int
        The first token of every other value that the text names; none of them begins the answer.
    distance : int
        Tokens between the value in the text and the place where it is asked for.
    """

    task: str
    length: int
    depth: float
    text: str
    ids: tuple[int, ...]
    answer: tuple[int, ...]
    others: tuple[int, ...]
    distance: int


def haystacks(lm: LanguageModel, grid: Grid, seed: int = 0) -> list[Haystack]:
    """Make haystacks, the same ones for the same seed, in the order of the grid's cells.

    Parameters
    ----------
    lm : LanguageModel
        Whose tokenizer counts the tokens.
    grid : Grid
        Which ones.
    seed : int
        What they are drawn from. More of a cell begin with the same ones.

    Raises
    ------
    ArgumentError
        The model has no tokenizer, or one by which values cannot be told from one another; a length is more than the
        model has positions, or too short for facts and question.
    """
    if lm.tokenizer is None:
        raise ArgumentError(complaint("model", wanted="one with a tokenizer, to make haystacks for", got="none"))
    if lm.facts.positions is not None and max(grid.lengths) > lm.facts.positions:
        wanted = f"at most {lm.facts.positions:,} tokens, as many as the model has positions"
        raise ArgumentError(complaint("lengths", wanted=wanted, got=f"{max(grid.lengths):,}"))
    maker = _Maker(lm)
    made = []
    for task, length, depth in grid.cells():
        random = Random(f"{task} {length} {depth} {seed}")  # noqa: S311 - has to be the same again, not secret
        made += [maker.make(random, task, length, depth) for _ in range(grid.each)]
    return made


class _Maker:
    """Makes haystacks for one tokenizer; how many tokens a sentence has is counted once."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._sizes: dict[str, int] = {}
        self._firsts = self._first_tokens()

    def make(self, random: Random, task: str, length: int, depth: float) -> Haystack:
        """Make one."""
        keys = random.sample([f"{colour} {place}" for colour in COLOURS for place in _PLACES], 1 + RIVALS)
        (value, first), *drawn = self._values(random)
        rivals, others = zip(*drawn, strict=True)
        fact = _fact(keys[0], value)
        if task == "many facts":
            strays = [_fact(key, rival) for key, rival in zip(keys[1:], rivals, strict=True)]
        else:
            strays = [random.choice(_MENTIONS).format(rival) for rival in rivals]
        question = f"What is the word for the {keys[0]}? The word for the {keys[0]} is"
        sentences = self._filling(random, length - sum(map(self._size, [*strays, fact, question])) + _SPARE)
        for stray in strays:
            sentences.insert(random.randint(0, len(sentences)), stray)
        while True:
            front = self._front(sentences, fact, depth)
            text = " ".join([*front, *sentences[len(front) - 1 :], question])
            ids = self._ids(text)
            if len(ids) <= length:
                break
            # Sentences that are joined may have a token more than they have one by one.
            spare = [i for i, sentence in enumerate(sentences) if sentence not in strays]
            if not spare:
                raise ArgumentError(complaint("lengths", wanted=f"at least {len(ids)} tokens", got=length))
            del sentences[random.choice(spare)]
        answer = self._ids(f"{text} {value}")[len(ids) :]
        if answer[:1] != [first]:
            wanted = "a tokenizer that cuts a word in the same way wherever it stands"
            raise ArgumentError(complaint("model", wanted=wanted, got="one that does not"))
        # The value is the fact's last word; a full stop stands behind it.
        distance = len(ids) - len(self._ids(" ".join(front)[:-1]))
        return Haystack(task, length, depth, text, tuple(ids), tuple(answer), others, distance)

    def _first_tokens(self) -> dict[str, int]:
        """Return the first token of each value."""
        stem = self._ids("The word is")
        found = {}
        for value in FOODS + ANIMALS:
            longer = self._ids(f"The word is {value}")
            if longer[: len(stem)] == stem and len(longer) > len(stem):
                found[value] = longer[len(stem)]
        if len(set(found.values())) <= RIVALS:
            wanted = f"a tokenizer by which at least {RIVALS + 1} of our words begin differently"
            raise ArgumentError(complaint("model", wanted=wanted, got=f"one by which {len(set(found.values()))} do"))
        return found

    def _values(self, random: Random) -> list[tuple[str, int]]:
        """Draw values of which no two begin with the same token."""
        found: dict[int, str] = {}
        for value in random.sample(list(self._firsts), len(self._firsts)):
            found.setdefault(self._firsts[value], value)
        return [(value, first) for first, value in found.items()][: RIVALS + 1]

    def _filling(self, random: Random, room: int) -> list[str]:
        """Return sentences that have so many tokens together, no two alike as long as there are others."""
        found: list[str] = []
        known: set[str] = set()
        while True:
            sentence = filler(random)
            for _ in range(_TRIES):
                if sentence not in known:
                    break
                sentence = filler(random)
            else:
                known.clear()
            known.add(sentence)
            room -= self._size(sentence)
            if room < 0:
                return found
            found.append(sentence)

    def _front(self, sentences: Sequence[str], fact: str, depth: float) -> list[str]:
        """Return the sentences before the fact's place, and the fact."""
        sizes = [self._size(sentence) for sentence in sentences]
        wanted, place, passed = depth * sum(sizes), 0, 0
        while place < len(sizes) and passed + sizes[place] / 2 <= wanted:
            passed += sizes[place]
            place += 1
        return [*sentences[:place], fact]

    def _size(self, sentence: str) -> int:
        if sentence not in self._sizes:
            document = self._lm.tokenize(f" {sentence}")
            self._sizes[sentence] = len(document) - sum(document.added)
        return self._sizes[sentence]

    def _ids(self, text: str) -> list[int]:
        """Return a text's tokens, without those that a tokenizer puts behind it."""
        document = self._lm.tokenize(text)
        return document.ids[: len(document) - document.added[1]]


def _fact(key: str, value: str) -> str:
    return f"The word for the {key} is {value}."
