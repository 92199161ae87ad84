"""CoNLL-U says the same after a round trip, and merging tokens into words is what its definition says."""

from __future__ import annotations

import re

import torch
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import DocumentError
from attlas.heads.relations.conllu import Parsed, parse_conllu
from attlas.heads.relations.words import NO_WORD, merged

FORMS = st.text(st.characters(codec="utf-8", exclude_characters="\t\n\r", exclude_categories=("Cc", "Cs")), min_size=1)
LABELS = st.from_regex(r"[a-z]{1,5}(:[a-z]{1,4})?", fullmatch=True)


@st.composite
def treebanks(draw: st.DrawFn) -> tuple[str, list[Parsed]]:
    """Return a CoNLL-U text and what it says."""
    lines, expected = [], []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(1, 7))
        order = draw(st.permutations(range(size)))
        # A tree: every word hangs on one that comes before it in a random order.
        heads = {order[0]: 0}
        for place in range(1, size):
            heads[order[place]] = order[draw(st.integers(0, place - 1))] + 1
        labels = [draw(LABELS) for _ in range(size)]
        words: list[str] = []
        spaces: list[bool] = []
        unit: list[int] = []
        while len(unit) < size:
            together = draw(st.integers(1, min(3, size - len(unit))))
            written, space = draw(FORMS.filter(str.strip)), draw(st.booleans())
            misc = "_" if space else "Note=x|SpaceAfter=No"
            first = len(unit) + 1
            lines += ["# a remark"] * draw(st.integers(0, 1))
            if together > 1:
                lines.append(f"{first}-{first + together - 1}\t{written}" + "\t_" * 7 + f"\t{misc}")
            for number in range(first, first + together):
                form = written if together == 1 else draw(FORMS.filter(str.strip))
                columns = [str(number), form, "_", "X", "_", "_", str(heads[number - 1]), labels[number - 1], "_"]
                lines.append("\t".join([*columns, misc if together == 1 else "_"]))
                lines += [f"{number}.1\tempty" + "\t_" * 8] * draw(st.integers(0, 1))
                unit.append(len(words))
            words.append(written)
            spaces.append(space)
        lines += [""] * draw(st.integers(1, 2))
        links = tuple(
            (unit[i], unit[heads[i] - 1], labels[i]) for i in range(size) if heads[i] and unit[i] != unit[heads[i] - 1]
        )
        expected.append(Parsed(tuple(words), tuple(spaces), links))
    return "\n".join(lines), expected


@given(treebanks())
def test_what_is_written_is_read(bank: tuple[str, list[Parsed]]) -> None:
    text, expected = bank
    assert list(parse_conllu(text)) == expected


@given(treebanks(), st.data())
def test_a_damaged_file_is_read_or_refused_by_line_and_column(
    bank: tuple[str, list[Parsed]], data: st.DataObject
) -> None:
    text = bank[0]
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 3)))
    damaged = text[:at] + data.draw(st.text("\t\n 0123456789-._#x", max_size=3)) + text[until:]
    try:
        found = list(parse_conllu(damaged, "bank"))
    except DocumentError as error:
        place = re.match(r"bank: line ([\d,]+), column (\d+) \([A-Z]+\): wanted ", str(error))
        assert place
        assert 1 <= int(place[1].replace(",", "")) <= damaged.count("\n") + 1
        assert 1 <= int(place[2]) <= 10
        return
    for sentence in found:
        count = len(sentence.words)
        assert all(0 <= d < count and 0 <= h < count and d != h for d, h, _ in sentence.links)


@given(st.data())
def test_merging_is_the_mean_over_pieces_of_sums_over_pieces(data: st.DataObject) -> None:
    batch, heads, n = (data.draw(st.integers(1, most)) for most in (3, 2, 7))
    count = data.draw(st.integers(1, 5))
    words = [[data.draw(st.integers(NO_WORD, count - 1)) for _ in range(n)] for _ in range(batch)]
    seed = data.draw(st.integers(0, 1000))
    A = torch.rand(batch, heads, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(-1)
    found = merged(A, torch.tensor(words), count)
    for b in range(batch):
        for a in range(count):
            rows = [i for i in range(n) if words[b][i] == a]
            for c in range(count):
                cols = [j for j in range(n) if words[b][j] == c]
                each = [sum(A[b, :, i, j] for j in cols) for i in rows]
                expected = sum(each) / len(rows) if rows and cols else torch.zeros(heads, dtype=torch.float64)
                torch.testing.assert_close(found[b, :, a, c], torch.as_tensor(expected, dtype=torch.float64))
        if NO_WORD not in words[b]:
            total = found[b].sum(-1)[:, sorted(set(words[b]))]
            torch.testing.assert_close(total, torch.ones_like(total))
