from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attlas.errors import ArgumentError
from attlas.patterns import SlidingWindow
from attlas.view.tiles.matrices import REMEMBERED, Matrices, Term, UnknownMatrix
from viewing import captured


@pytest.fixture(scope="module")
def matrices() -> Matrices:
    return Matrices({"a": captured(40), "b": captured(40, layers=1), "c": captured(30, batch=2, layers=1)})


def test_a_head_of_a_layer(matrices: Matrices) -> None:
    found = matrices.named("a.1.3")
    torch.testing.assert_close(found.operator.to_dense()[0, 0], captured(40)[1].to_dense()[0, 3])
    assert found.exact is found.operator
    assert matrices.named("a.1.3") is found, "it keeps what it has learnt of its rows"


def test_the_mean_over_heads(matrices: Matrices) -> None:
    found = matrices.named("a.1.mean")
    torch.testing.assert_close(found.operator.to_dense()[0, 0], captured(40)[1].to_dense()[0].mean(0))
    assert found.exact is None


def test_what_a_pattern_makes_of_it(matrices: Matrices) -> None:
    found = matrices.named("a.1.0:sliding_window:width=4,sinks=1")
    expected = SlidingWindow(4, sinks=1).matrix(captured(40)[1]).to_dense()[0]
    torch.testing.assert_close(found.operator.to_dense()[0, 0], expected[0])
    mean = matrices.named("a.1.mean:sliding_window:width=4,sinks=1")
    torch.testing.assert_close(mean.operator.to_dense()[0, 0], expected.mean(0))


def test_a_difference_is_the_first_minus_the_second(matrices: Matrices) -> None:
    found = matrices.named("a.0.1~b.0.2")
    torch.testing.assert_close(
        found.operator.to_dense()[0, 0], captured(40)[0].to_dense()[0, 1] - captured(40, layers=1)[0].to_dense()[0, 2]
    )
    assert found.spread is None
    assert found.operator.signed


def test_of_a_batch_the_first_element_is_shown(matrices: Matrices) -> None:
    found = matrices.named("c.0.1")
    torch.testing.assert_close(found.operator.to_dense()[0, 0], captured(30, batch=2, layers=1)[0].to_dense()[0, 1])


@pytest.mark.parametrize(
    "name",
    [
        "", "a", "a.0", "a.0.0.0", "a..0", ".0.0", "a.0.0~", "~a.0.0", "a.0.0~a.0.1~a.0.2", "A.0.0", "a.-1.0", "a.0.-1",
        "a.0.x", "a.0.mean ", " a.0.0", "a.0.0\n", "a.٣.0", "a.0.²", "a.123456.0", "a.0.0:", "aaaa.0.0", "z.0.0",
        "a.9.0", "a.0.4", "a.0.0/..", "../a.0.0", "a.0.0\0", "a.0.0:" + "x" * 201, "a" * 600, "\ud800", "\u202ea.0.0",
        "a.0.0%00", "a.0.0;b.0.0",
    ],
)  # fmt: skip
def test_what_names_no_matrix_is_refused(matrices: Matrices, name: str) -> None:
    with pytest.raises(UnknownMatrix) as refused:
        matrices.named(name)
    assert str(refused.value).isascii(), "what comes back shows what was asked in plain characters"
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "pattern",
    [
        "nonsense", "sliding_window", "sliding_window:width=0", "sliding_window:width=999999999", "bigbird:block=1e9",
        "sliding_window:width=NaN", "sliding_window:width=Infinity", "sliding_window:width=1" + "0" * 150,
        "low_rank:rank=513", "low_rank:rank=-1", "linear:features=nonsense", "linear:features={}",
        "linear:features=[[]]",
        'linear:features={"kind":"favor"}', "linear:features=7", "global_tokens:tokens=0+1+x,width=4", "full:width=3",
        "global_tokens:tokens=0+999999999,width=4", "block_sparse:block=true,local=1",
        "sliding_window:width=" + "[" * 150,
    ],
)  # fmt: skip
def test_a_pattern_that_is_none_or_too_large_is_refused(matrices: Matrices, pattern: str) -> None:
    with pytest.raises(ArgumentError):
        matrices.named(f"a.0.0:{pattern}")


def test_many_small_blocks_are_refused() -> None:
    matrices = Matrices({"a": captured(2000, layers=1)})
    with pytest.raises(ArgumentError, match="block: wanted at least 2, got 1"):
        matrices.named("a.0.0:bigbird:block=1")


def test_matrices_of_two_sizes_have_no_difference(matrices: Matrices) -> None:
    with pytest.raises(ArgumentError, match=r"two of one size, got \(40, 40\) and \(30, 30\)"):
        matrices.named("a.0.0~c.0.0")


@given(st.text(max_size=60))
def test_no_text_is_more_than_a_name_or_a_refusal(text: str) -> None:
    try:
        term = Term.parsed(text)
    except UnknownMatrix:
        return
    assert text.split(":")[0] == f"{term.capture}.{text.split('.')[1]}.{text.split(':')[0].split('.')[2]}"


def test_only_so_many_are_kept(matrices: Matrices) -> None:
    first = matrices.named("a.0.0")
    for width in range(1, REMEMBERED + 1):
        matrices.named(f"a.0.0:sliding_window:width={width}")
    assert matrices.named("a.0.0") is not first


def test_chosen_heads_keep_their_numbers() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    import attlas

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, vocab_size=32
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad(), attlas.capture(model, layers=[1], heads=[3, 1]) as cap:
        model(input_ids=torch.arange(10).unsqueeze(0))
    matrices = Matrices({"a": cap})
    torch.testing.assert_close(matrices.named("a.1.1").operator.to_dense()[0, 0], cap[1].to_dense()[0, 1])
    with pytest.raises(UnknownMatrix, match="head"):
        matrices.named("a.1.0")
