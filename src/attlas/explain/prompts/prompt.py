"""One prompt: a text whose answer is known, and the place in it that the answer comes from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Prompt:
    """A text to explain, of which it is known what a good explanation points at.

    Parameters
    ----------
    kind : str
        Which kind it is; see `KINDS`.
    text : str
        What the model reads. A prompt for a next token ends where the answer begins.
    cue : tuple of (int, int)
        Characters of `text`, from and up to, that decide the answer.
    answer : str
        How the text goes on, its leading space included; empty for a text to be classified.
    against : str
        What it must not be mistaken for: then the answer is what the model prefers to this; without it, the answer is
        what the model predicts before all else.
    label : int, optional
        The class, 0 or 1, of a text to be classified.
    """

    kind: str
    text: str
    cue: tuple[tuple[int, int], ...]
    answer: str = ""
    against: str = ""
    label: int | None = None

    @property
    def cues(self) -> tuple[str, ...]:
        """The words of the cue."""
        return tuple(self.text[start:stop] for start, stop in self.cue)


@dataclass
class Draft:
    """A text on its way, which remembers where its cue stands."""

    text: str = ""
    cue: list[tuple[int, int]] = field(default_factory=list)

    def say(self, words: str, *, cue: bool = False) -> None:
        """Write on, with a space in front unless the text or the line begins here, or a stop follows."""
        if self.text and not self.text.endswith("\n") and words[0] not in ".,?\n":
            self.text += " "
        if cue:
            self.cue.append((len(self.text), len(self.text) + len(words)))
        self.text += words
