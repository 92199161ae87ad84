"""Sentences in which it is known which word belongs to which: the library's own, a treebank's, or a user's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from attlas.errors import ArgumentError, DocumentError, complaint
from attlas.heads.relations.conllu import parse_conllu
from attlas.heads.relations.grammar import FORMS, RELATIONS, write
from attlas.models import read_text

COUNT = 400


@dataclass(frozen=True)
class Pair:
    """Two words that belong together.

    Parameters
    ----------
    sentence : int
        Which sentence.
    dependent, head : int
        The two words, counted from 0: what hangs on what.
    relation : str
        By which relation.
    rivals : tuple of int
        Words that could be taken for the head by mistake, such as a nearer noun of the other number; may be empty.
    """

    sentence: int
    dependent: int
    head: int
    relation: str
    rivals: tuple[int, ...] = ()

    @property
    def offset(self) -> int:
        """How many words the head is behind the dependent; negative before it."""
        return self.head - self.dependent


@dataclass(frozen=True, repr=False)
class LabelledPairs:
    """Sentences, and pairs of their words with the relation between them.

    Made by `sentences`, `LabelledPairs.from_conllu` and `LabelledPairs.from_pairs`.

    Parameters
    ----------
    sentences : tuple of tuple of str
        The words of each sentence.
    pairs : tuple of Pair
    spaces : tuple of tuple of bool, optional
        Whether a space follows each word; by default one always does.
    halves : tuple of int, optional
        0 or 1 for each sentence: on which half heads are chosen, and on which they are measured. Drawn at random where
        it is None.
    origin : str
        Where they come from.

    Raises
    ------
    ArgumentError
        A pair does not fit its sentence.
    """

    sentences: tuple[tuple[str, ...], ...]
    pairs: tuple[Pair, ...]
    spaces: tuple[tuple[bool, ...], ...] | None = None
    halves: tuple[int, ...] | None = None
    origin: str = ""

    def __post_init__(self) -> None:
        for name, given in (("spaces", self.spaces), ("halves", self.halves)):
            if given is not None and len(given) != len(self.sentences):
                raise ArgumentError(complaint(name, wanted=f"one for each of {len(self.sentences)}", got=len(given)))
        for number, pair in enumerate(self.pairs):
            _check(number, pair, self.sentences)

    def __repr__(self) -> str:
        return f"LabelledPairs({len(self.sentences)} sentences, {len(self.pairs)} pairs: {', '.join(self.relations)})"

    @property
    def relations(self) -> tuple[str, ...]:
        """The names of the relations that occur, in the order of their first pair."""
        return tuple(dict.fromkeys(pair.relation for pair in self.pairs))

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with the sentences and the pairs."""
        said = repr((self.sentences, self.spaces, self.pairs, self.halves))
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def text(self, sentence: int) -> str:
        """Return a sentence as it is written."""
        return "".join(word + " " * space for word, space in zip(*self._written(sentence), strict=True)).rstrip(" ")

    def spans(self, sentence: int) -> list[tuple[int, int]]:
        """Return which characters of `text` each word covers, from and up to."""
        spans, at = [], 0
        for word, space in zip(*self._written(sentence), strict=True):
            spans.append((at, at + len(word)))
            at += len(word) + space
        return spans

    def only(self, relations: str | Iterable[str]) -> LabelledPairs:
        """Return the same sentences with the pairs of some relations alone.

        Raises
        ------
        ArgumentError
            None of them occurs.
        """
        wanted = {relations} if isinstance(relations, str) else set(relations)
        kept = tuple(pair for pair in self.pairs if pair.relation in wanted)
        if not kept:
            raise ArgumentError(
                complaint("relations", wanted=f"some of {', '.join(self.relations)}", got=", ".join(sorted(wanted)))
            )
        return replace(self, pairs=kept)

    def statistics(self) -> list[dict[str, Any]]:
        """Return, for each relation, how often it occurs and how far its words are apart.

        Returns
        -------
        list of dict
            relation, pairs, sentences, mean_distance (in words), head_after (the share of heads behind their
            dependents), best_offset and its share: how often a fixed offset would be right.
        """
        rows = []
        for relation in self.relations:
            pairs = [pair for pair in self.pairs if pair.relation == relation]
            offsets = Counter(pair.offset for pair in pairs)
            offset, often = offsets.most_common(1)[0]
            rows.append(
                {
                    "relation": relation,
                    "pairs": len(pairs),
                    "sentences": len({pair.sentence for pair in pairs}),
                    "mean_distance": sum(abs(pair.offset) for pair in pairs) / len(pairs),
                    "head_after": sum(pair.offset > 0 for pair in pairs) / len(pairs),
                    "best_offset": offset,
                    "best_offset_share": often / len(pairs),
                }
            )
        return rows

    @classmethod
    def from_conllu(cls, path: str | PathLike[str], *, relations: Iterable[str] | None = None) -> LabelledPairs:
        """Read a treebank in CoNLL-U.

        Parameters
        ----------
        path : path
            The file, or ``"-"`` for standard input.
        relations : iterable of str, optional
            Which to keep; all by default. Sub-types such as ``nsubj:pass`` are relations of their own.

        Raises
        ------
        DocumentError
            It cannot be read, has no sentence, or is malformed; then the message has the line and the column.

        Notes
        -----
        A multiword token is one word, since it is what a model reads; empty nodes are left out.
        """
        source = str(path)
        parsed = list(parse_conllu(read_text(source), source))
        if not parsed:
            raise DocumentError(f"{source}: wanted sentences in CoNLL-U, got only comments and empty lines")
        pairs = tuple(
            Pair(number, dependent, head, relation)
            for number, sentence in enumerate(parsed)
            for dependent, head, relation in sentence.links
        )
        found = cls(tuple(s.words for s in parsed), pairs, tuple(s.spaces for s in parsed), origin=source)
        return found if relations is None else found.only(relations)

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str | Sequence[str], int, int, str]]) -> LabelledPairs:
        """Take pairs of your own.

        Parameters
        ----------
        pairs : iterable of (sentence, dependent, head, relation)
            The sentence as a list of words, or as a text that is cut at its spaces; the two words by number from 0.

        Raises
        ------
        ArgumentError
            A pair does not fit its sentence.

        Examples
        --------
        >>> own = LabelledPairs.from_pairs([("the old dog sleeps", 0, 2, "det"), ("the old dog sleeps", 2, 3, "nsubj")])
        >>> own.relations
        ('det', 'nsubj')
        """
        numbers: dict[tuple[str, ...], int] = {}
        made = []
        for number, given in enumerate(pairs):
            if isinstance(given, str) or not isinstance(given, Sequence) or len(given) != 4:
                raise ArgumentError(
                    complaint(f"pairs[{number}]", wanted="(sentence, dependent, head, relation)", got=repr(given))
                )
            sentence, dependent, head, relation = given
            words = tuple(sentence.split() if isinstance(sentence, str) else sentence)
            made.append(Pair(numbers.setdefault(words, len(numbers)), dependent, head, relation))
        if not made:
            raise ArgumentError(complaint("pairs", wanted="at least one", got="none"))
        return cls(tuple(numbers), tuple(made), origin="own pairs")

    @classmethod
    def join(cls, several: Iterable[LabelledPairs]) -> LabelledPairs:
        """Put several of them together.

        Raises
        ------
        ArgumentError
            There are none, or some know their halves and others do not.
        """
        parts = list(several)
        if not parts or len({part.halves is None for part in parts}) > 1:
            raise ArgumentError(
                complaint("several", wanted="at least one, all with halves or all without", got=len(parts))
            )
        sentences, pairs, spaces, halves = [], [], [], []
        for part in parts:
            pairs += [replace(pair, sentence=pair.sentence + len(sentences)) for pair in part.pairs]
            sentences += part.sentences
            spaces += part.spaces or [(True,) * len(words) for words in part.sentences]
            halves += part.halves or ()
        origin = ", ".join(dict.fromkeys(part.origin for part in parts))
        return cls(tuple(sentences), tuple(pairs), tuple(spaces), tuple(halves) or None, origin)

    def _written(self, sentence: int) -> tuple[tuple[str, ...], tuple[bool, ...]]:
        words = self.sentences[sentence]
        return words, (True,) * len(words) if self.spaces is None else self.spaces[sentence]


def sentences(kind: str | Iterable[str] | None = None, count: int = COUNT, seed: int = 0) -> LabelledPairs:
    """Make sentences with relations that are known because a grammar made them.

    Parameters
    ----------
    kind : str or iterable of str, optional
        Which relations (`RELATIONS` in `attlas.heads.relations.grammar`): det, amod, nsubj, obj, poss, case, agreement,
        pronoun, reflexive. All by default; otherwise every sentence has at least one of them.
    count : int
        How many sentences; there is no end to them, and the first ones stay the same.
    seed : int
        Other seeds give other sentences.

    Returns
    -------
    LabelledPairs
        Its two halves share no noun, verb or adjective, so a head that is chosen on one half by a liking for certain
        words gains nothing on the other.

    Raises
    ------
    ArgumentError
        There is no such relation, or a number does not fit.

    Notes
    -----
    The words and the grammar are the library's own. Sentences are grammatical and mean little. About 0.1 ms each.

    Examples
    --------
    >>> made = sentences("pronoun", count=10)
    >>> len(made.sentences), made.relations
    (10, ('pronoun',))
    """
    wanted = _wanted(kind)
    for name, value, least in (("count", count, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ArgumentError(complaint(name, wanted=f"a whole number from {least}", got=repr(value)))
    forms = _forms(wanted)
    made, tries = [], 0
    while len(made) < count:
        form = forms[tries % len(forms)]
        # Halves alternate only when each form has had its turn, so that both get all forms alike.
        half = len(made) // len(forms) % 2
        draft = write(form, tries, seed, half)
        tries += 1
        if any(relation in wanted for _, _, relation, _ in draft.links):
            made.append((draft, half))
    pairs = tuple(
        Pair(number, dependent, head, relation, rivals)
        for number, (sentence, _) in enumerate(made)
        for dependent, head, relation, rivals in sentence.links
        if relation in wanted
    )
    return LabelledPairs(
        tuple(sentence.words for sentence, _ in made),
        pairs,
        tuple(sentence.spaces for sentence, _ in made),
        tuple(half for _, half in made),
        f"sentences({kind!r}, count={count}, seed={seed})",
    )


def _wanted(kind: str | Iterable[str] | None) -> set[str]:
    known = [relation.name for relation in RELATIONS]
    wanted = set(known) if kind is None else {kind} if isinstance(kind, str) else set(kind)
    if not wanted or not wanted <= set(known):
        got = ", ".join(sorted(wanted - set(known))) or "none"
        raise ArgumentError(complaint("kind", wanted=f"some of {', '.join(known)}", got=got))
    return wanted


def _forms(wanted: set[str]) -> list[str]:
    """Return the forms of sentences that have these relations."""
    special = [form for form in FORMS if form in wanted]
    return ["plain", *special] if wanted - set(FORMS) else special


def _check(number: int, pair: Pair, written: tuple[tuple[str, ...], ...]) -> None:
    name = f"pairs[{number}]"
    if not isinstance(pair.relation, str) or not pair.relation:
        raise ArgumentError(complaint(name, wanted="a relation's name", got=repr(pair.relation)))
    if not 0 <= pair.sentence < len(written):
        raise ArgumentError(complaint(name, wanted=f"a sentence from 0 to {len(written) - 1}", got=pair.sentence))
    words = written[pair.sentence]
    for what, word in (("dependent", pair.dependent), ("head", pair.head), *(("rival", r) for r in pair.rivals)):
        if isinstance(word, bool) or not isinstance(word, int) or not 0 <= word < len(words):
            raise ArgumentError(
                complaint(f"{name}, {what}", wanted=f"a word from 0 to {len(words) - 1}", got=repr(word))
            )
    if pair.dependent == pair.head:
        raise ArgumentError(complaint(name, wanted="two different words", got=f"word {pair.head} twice"))
    if not all(isinstance(word, str) and word.strip() for word in words):
        raise ArgumentError(complaint(name, wanted="words that are not empty", got=repr(words)))
