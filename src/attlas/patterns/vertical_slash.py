"""The columns and diagonals that a head attends to most, as each head's last rows show them."""

from __future__ import annotations

from dataclasses import dataclass

from attlas.errors import ArgumentError, complaint
from attlas.matrix import AttentionMatrix
from attlas.patterns.keep import HEIGHT
from attlas.patterns.keep_set import KeepSet, whole_number
from attlas.patterns.lines import Lines, bands_ahead, choose_lines
from attlas.patterns.pattern import Work


@dataclass(frozen=True)
class VerticalSlash(KeepSet):
    """Each head keeps the columns and the diagonals that hold most of its last rows' mass.

    Parameters
    ----------
    vertical : int
        How many columns.
    slash : int
        How many diagonals, in bands of `band` neighbours; those next to the row's own position are among them.
    probe : int
        How many last rows are looked at.
    band : int
        Diagonals of a band, which divides `slash`: neighbours cost little more than one, because a chunk of rows needs
        the keys of all of them anyway.

    Raises
    ------
    ArgumentError
        A number is too small, or `band` does not divide `slash`.

    Notes
    -----
    The choice looks at the last rows, and then holds for all rows: of a causal matrix, what earlier rows keep depends
    on later tokens, so it suits reading a prompt, not training or scoring a text token by token. Under cached decoding
    it is made anew from the rows that are there.

    References
    ----------
    Jiang et al. (2024), "MInference 1.0: accelerating pre-filling for long-context LLMs via dynamic sparse attention",
    arXiv 2407.02490, section 3.2 and algorithm 1.
    """

    kind = "vertical_slash"

    vertical: int
    slash: int
    probe: int = 64
    band: int = 16

    def __post_init__(self) -> None:
        whole_number("vertical", self.vertical, 0)
        for name in ("slash", "probe", "band"):
            whole_number(name, getattr(self, name), 1)
        if self.slash % self.band:
            wanted = f"a multiple of band = {self.band}"
            raise ArgumentError(complaint("slash", wanted=wanted, got=self.slash, way_out="or set band=1"))

    def keep(self, exact: AttentionMatrix) -> Lines:
        return choose_lines(exact, self.vertical, self.slash // self.band, self.band, self.probe)

    def work(self, n_query: int, n_key: int, *, causal: bool) -> Work:
        """Count what `attend` costs one head at most: bands that touch share keys, and early rows have fewer."""
        bands = min(self.slash // self.band, bands_ahead(n_key, self.band) * (1 if causal else 2) + 1)
        rows = min(n_query, n_key)
        height = min(HEIGHT, rows)
        width = min(self.vertical, n_key) + bands * (height + self.band - 1)
        return Work(pairs=rows * width)
