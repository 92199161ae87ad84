"""Data becomes tokens, of which the right ones are learnt; faulty lines are named by their numbers."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import pytest

import attlas
from attlas.errors import ArgumentError, DocumentError
from attlas.training import examples_of


def shown(lm, example) -> str:
    """Return an example's text, what is learnt in capitals."""
    letters = lm.tokenizer.convert_ids_to_tokens(list(example.ids))
    return "".join(x.upper() if learnt else x for x, learnt in zip(letters, example.learnt, strict=True))


def write(path, *lines: object):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_completion_is_learnt_and_the_end_of_text_after_it(pupil, tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "a:", "completion": " f."}, {"prompt": "", "completion": "b"})
    made = examples_of(pupil, path)
    assert [shown(pupil, one) for one in made.items] == ["a: F.|", "B|"]
    assert made.items[0].learnt == (False, False, True, True, True, True)
    assert made.tokens == 4 + 1  # nothing comes before a first token
    assert made.source == str(path)


def test_a_text_is_learnt_whole_and_makes_several_examples(pupil):
    made = examples_of(pupil, [{"text": "abcdefg"}], length=3)
    assert [shown(pupil, one) for one in made.items] == ["ABC", "DEF", "G|"]
    assert made.shortened == 0


def test_the_assistants_turns_of_a_chat_are_learnt(pupil):
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (made,) = examples_of(pupil, [{"messages": messages}]).items
    assert shown(pupil, made) == "<user:a><assistant:B><user:c><assistant:D>"
    taught = "".join(x for x, learnt in zip(pupil.tokenizer.decode(made.ids), made.learnt, strict=True) if learnt)
    assert taught == "b>d>"


def test_a_plain_text_is_cut_into_pieces(pupil, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abcdefgh", encoding="utf-8")
    made = examples_of(pupil, path, length=3)
    assert [shown(pupil, one) for one in made.items] == ["ABC", "DEF", "GH"]


def test_standard_input_is_a_plain_text(pupil, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abcd")))
    assert len(examples_of(pupil, "-", length=2)) == 2


def test_what_is_too_long_loses_its_end_and_is_counted(pupil):
    made = examples_of(pupil, [{"prompt": "ab", "completion": "cdefgh"}, {"prompt": "a", "completion": "b"}], length=5)
    assert [shown(pupil, one) for one in made.items] == ["abCDE", "aB|"]
    assert made.shortened == 1


def test_all_faulty_lines_are_named_in_one_error(pupil, tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"text": "a b"},
        "",
        "{broken",
        [1, 2],
        {"question": "a"},
        {"prompt": "a", "completion": "  "},
        {"prompt": "a" * 600, "completion": "b"},
        {"messages": "hello"},
        {"messages": [{"role": "user", "content": "a"}]},
        {"text": 3},
    )
    with pytest.raises(DocumentError) as refused:
        examples_of(pupil, path)
    said = str(refused.value)
    for part in (
        "line 2 is empty",
        "line 3 is not JSON",
        "line 4 is no object",
        "line 5 has none of these forms, but question",
        "line 6 has no text as completion",
        "line 7 begins to be learnt after 512 tokens",
        "line 8 has messages that are not a list of {role, content}",
        "line 9 leaves nothing to be learnt",
        "and 1 more",
        'wanted JSON objects, each {"text"}',
    ):
        assert part in said
    assert "line 1 " not in said
    assert "\n" not in said


def test_items_of_a_list_are_numbered_too(pupil):
    with pytest.raises(DocumentError, match="a list: item 2 is no object"):
        examples_of(pupil, [{"text": "ab"}, "ab"])  # pyright: ignore[reportArgumentType]  that is the test


def test_a_file_without_lines_is_refused(pupil, tmp_path):
    with pytest.raises(DocumentError):
        examples_of(pupil, write(tmp_path / "a.jsonl"))
    with pytest.raises(DocumentError, match="at least one"):
        examples_of(pupil, [])


def test_a_chat_needs_a_template(pupil):
    bare = replace(pupil, tokenizer=type(pupil.tokenizer)(tokenizer_object=pupil.tokenizer.backend_tokenizer))
    with pytest.raises(ArgumentError, match=r"which has none; give prompt and completion, or text"):
        examples_of(bare, [{"messages": [{"role": "user", "content": "a"}]}])


def test_a_template_that_rewrites_earlier_turns_is_refused(pupil):
    pupil.tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(
        DocumentError, match="item 1 is a chat whose turns the template does not write one after another"
    ):
        examples_of(pupil, [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}])


def test_a_model_without_a_tokenizer_is_refused(pupil):
    with pytest.raises(ArgumentError, match="wanted a model that reads text"):
        examples_of(replace(pupil, tokenizer=None), [{"text": "ab"}])


def test_the_same_data_has_the_same_digest_and_no_other_has_it(pupil):
    one = examples_of(pupil, [{"prompt": "a", "completion": "b"}])
    assert one.digest == examples_of(pupil, [{"prompt": "a", "completion": "b"}]).digest
    others = ([{"prompt": "b", "completion": "b"}], [{"text": "ab"}], [{"prompt": "a", "completion": "b"}] * 2)
    assert len({one.digest, *(examples_of(pupil, other).digest for other in others)}) == 4


@pytest.mark.bundled
def test_a_real_chat_template_writes_turns_one_after_another():
    lm = attlas.load("smollm2-135m")
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello there"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "See you"},
    ]
    (made,) = examples_of(lm, [{"messages": messages}]).items
    whole = lm.tokenizer.apply_chat_template(messages, tokenize=False)
    assert list(made.ids) == lm.tokenizer(whole, add_special_tokens=False)["input_ids"]
    taught = lm.tokenizer.decode([x for x, learnt in zip(made.ids, made.learnt, strict=True) if learnt])
    assert taught == "Hello there<|im_end|>\nSee you<|im_end|>\n"
