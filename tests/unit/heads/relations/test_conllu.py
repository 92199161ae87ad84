from __future__ import annotations

from pathlib import Path

import pytest

from attlas.errors import DocumentError
from attlas.heads.relations.conllu import parse_conllu
from attlas.heads.relations.labelled import LabelledPairs


def row(name: object, form: str, head: object = "_", relation: str = "_", misc: str = "_") -> str:
    return "\t".join([str(name), form, "_", "_", "_", "_", str(head), relation, "_", misc])


GOOD = "\n".join(
    [
        "# sent_id = 1",
        "# text = Er geht zum Haus.",
        row(1, "Er", 2, "nsubj"),
        row(2, "geht", 0, "root"),
        row("2.1", "leer"),
        row("3-4", "zum"),
        row(3, "zu", 5, "case"),
        row(4, "dem", 5, "det"),
        row(5, "Haus", 2, "obl", "Gloss=house|SpaceAfter=No"),
        row(6, ".", 2, "punct"),
        "",
        "# another one",
        row("1-2", "du", misc="SpaceAfter=No"),
        row(1, "de", 2, "case"),
        row(2, "le", 0, "root"),
        row(3, "#", 2, "dep"),
        "",
        "",
    ]
)


def test_words_are_what_is_written() -> None:
    first, second = parse_conllu(GOOD)
    assert first.words == ("Er", "geht", "zum", "Haus", ".")
    assert first.spaces == (True, True, True, False, True)
    assert first.links == ((0, 1, "nsubj"), (2, 3, "case"), (2, 3, "det"), (3, 1, "obl"), (4, 1, "punct"))
    assert (second.words, second.spaces) == (("du", "#"), (False, True))
    assert second.links == ((1, 0, "dep"),), "a relation inside of a written word is no pair of words"


def test_line_ends_of_other_systems_and_a_missing_last_one() -> None:
    assert list(parse_conllu(GOOD.replace("\n", "\r\n"))) == list(parse_conllu(GOOD.rstrip("\n")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, "a", 0, "root"), "2\tb\t_"], r"line 2, column 4 \(UPOS\): wanted 10 columns between tabs, got 3"),
        ([row(1, "a", 0, "root") + "\tmore"], r"line 1, column 10 \(MISC\): wanted 10 columns between tabs, got 11"),
        (["1 a _ _ _ _ 0 root _ _"], r"line 1, column 2 \(FORM\): .* got 1"),
        ([row(2, "a", 0, "root")], r"line 1, column 1 \(ID\): wanted 1, as the next word, got '2'"),
        ([row("one", "a", 0, "root")], r"line 1, column 1 \(ID\)"),
        ([row(1, " ", 0, "root")], r"line 1, column 2 \(FORM\): wanted a word, got nothing"),
        ([row(1, "a", "_", "root")], r"line 1, column 7 \(HEAD\): wanted the number of a word, or 0 .* got '_'"),
        ([row(1, "a", "-1", "root")], r"line 1, column 7 \(HEAD\)"),
        (
            [row(1, "a", 3, "dep"), row(2, "b", 0, "root")],
            r"line 1, column 7 \(HEAD\): wanted a word from 0 to 2, got 3",
        ),
        ([row(1, "a", 1, "dep")], r"line 1, column 7 \(HEAD\): wanted another word, got the word itself"),
        (
            ["# text", row(1, "a", 0, "root"), row(2, "b", 3, "dep"), row(3, "c", 2, "dep")],
            r"line 3, column 7 \(HEAD\): wanted a way to the root, got 3, which leads back",
        ),
        ([row(1, "a", 0, "_")], r"line 1, column 8 \(DEPREL\)"),
        (
            [row("1-3", "ab"), row(1, "a", 0, "root"), row(2, "b", 1, "dep")],
            r"line 1, column 1 \(ID\): .* up to 2, got 3",
        ),
        ([row("2-3", "ab"), row(1, "a", 0, "root")], r"line 1, column 1 \(ID\): wanted the words from 1"),
        ([row("1-2", "ab"), row("1-2", "ab")], r"line 2, column 1 \(ID\)"),
    ],
)
def test_what_is_malformed_is_named_by_line_and_column(rows: list[str], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        list(parse_conllu("\n".join(rows) + "\n\n"))


def test_a_file_becomes_labelled_pairs(tmp_path: Path) -> None:
    path = tmp_path / "tree bank.conllu"
    path.write_text(GOOD, encoding="utf-8")
    found = LabelledPairs.from_conllu(path)
    assert found.sentences[0] == ("Er", "geht", "zum", "Haus", ".")
    assert found.text(0) == "Er geht zum Haus."
    assert found.text(1) == "du#"
    assert found.relations == ("nsubj", "case", "det", "obl", "punct", "dep")
    assert LabelledPairs.from_conllu(path, relations=["det"]).relations == ("det",)


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.conllu"
    path.write_text(GOOD + row(7, "x", 0, "root"), encoding="utf-8")
    with pytest.raises(DocumentError, match=r"bad\.conllu: line 18, column 1"):
        LabelledPairs.from_conllu(path)
    path.write_text("# nothing\n\n", encoding="utf-8")
    with pytest.raises(DocumentError, match="got only comments"):
        LabelledPairs.from_conllu(path)
    with pytest.raises(DocumentError, match="no such file"):
        LabelledPairs.from_conllu(tmp_path / "missing.conllu")
