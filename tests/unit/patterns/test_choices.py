"""What heads choose for themselves is found where it was planted, and is always the same."""

import torch

from attlas import AttentionMatrix
from attlas.patterns import BigBird, BlockSparse, VerticalSlash
from attlas.patterns.lines import last_rows
from attlas.patterns.pooled_blocks import PooledBlocks

GENERATOR = torch.Generator().manual_seed(5)


def chosen(pattern, query, key, **rules):
    """Return the blocks that each row block chose."""
    keep = pattern.keep(AttentionMatrix(query, key, causal=True, **rules))
    assert isinstance(keep, PooledBlocks)
    return keep.blocks


def random_heads(n=128, head=2, dim=8):
    query, key = (torch.randn(1, head, n, dim, generator=GENERATOR) for _ in range(2))
    return query, key


def test_the_planted_block_is_chosen_by_the_head_that_wants_it():
    query, key = random_heads()
    direction = torch.ones(8)
    key[0, 1, 32:48] += 3 * direction
    query[0, 1, 96:112] += 3 * direction
    blocks = chosen(BlockSparse(16, top=3), query, key)
    assert sorted(blocks[0, 1, 6].tolist()) == [0, 2, 6]
    assert blocks[0, 0, 0].tolist() == [0, -1, -1]


def test_a_blocks_choice_does_not_look_past_its_end():
    query, key = random_heads()
    other_query, other_key = query.clone(), key.clone()
    other_query[:, :, 64:] = 9.0
    other_key[:, :, 64:] = -9.0
    pattern = BlockSparse(16, top=3)
    first, second = chosen(pattern, query, key), chosen(pattern, other_query, other_key)
    assert torch.equal(first[:, :, :4], second[:, :, :4])


def test_padding_takes_no_part_in_a_choice():
    query, key = random_heads()
    mask = torch.arange(128).view(1, 1, 1, -1) >= 40
    loud = key.clone()
    loud[:, :, :40] = 50.0
    pattern = BlockSparse(16, top=4)
    quiet = chosen(pattern, query, key, mask=mask)
    assert torch.equal(quiet, chosen(pattern, query, loud, mask=mask))
    later = quiet[:, :, 3:]
    assert not bool(((later < 2) & (later >= 0)).any())


def test_planted_columns_and_diagonals_are_chosen():
    n, dim = 128, 96
    query, key = torch.zeros(1, 2, n, dim), torch.zeros(1, 2, n, dim)
    # Head 0 looks at columns 5 and 60; head 1 at the key 37 before.
    query[0, 0, :, 0] = 8.0
    key[0, 0, [5, 60], 0] = 8.0
    angles = torch.arange(n).unsqueeze(1) * torch.linspace(0.1, 3, dim // 2)
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    key[0, 1] = waves
    query[0, 1] = torch.roll(waves, 37, dims=0) * 5
    matrix = AttentionMatrix(query, key, causal=True, scale=1.0)
    keep = VerticalSlash(2, 8, probe=16, band=4).keep(matrix)
    assert sorted(keep.kept[0, 0].tolist()) == [5, 60]
    assert sorted(keep.bands[0, 1].tolist()) == [0, 37 // 4]
    held = torch.exp(VerticalSlash(2, 8, probe=16, band=4).matrix(matrix).lse - matrix.lse)
    assert float(held[0, 1, 40:].min()) > 0.9


def test_a_line_without_mass_is_not_chosen():
    query, key = torch.randn(1, 1, 40, 8), torch.randn(1, 1, 40, 8)
    matrix = AttentionMatrix(query, key, causal=True, window=6)
    keep = VerticalSlash(40, 40, probe=4, band=4).keep(matrix)
    assert sorted(band for band in keep.bands[0, 0].tolist() if band < 10) == [0, 1]
    assert sorted(column for column in keep.kept[0, 0].tolist() if column >= 0) == list(range(31, 40))


def test_the_last_rows_are_those_of_the_whole():
    query, key = random_heads()
    mask = torch.rand(1, 1, 128, 128, generator=GENERATOR) > 0.2
    bias = torch.randn(1, 2, 128, 128, generator=GENERATOR)
    matrix = AttentionMatrix(query, key, causal=True, window=50, mask=mask, bias=bias, sinks=torch.zeros(2))
    torch.testing.assert_close(last_rows(matrix, 9).to_dense(), matrix.to_dense()[:, :, -9:])


def test_random_blocks_are_even_reproducible_and_do_not_change_when_a_text_grows():
    pattern = BigBird(16, window=2, global_=1, random=2, seed=4)
    short, long = (pattern.at(n, causal=True).kept for n in (320, 640))
    assert short == long[: len(short)]
    assert pattern.at(640, causal=True).kept == long
    assert BigBird(16, window=2, global_=1, random=2, seed=5).at(640, causal=True).kept != long
    for row, kept in enumerate(long):
        assert len(kept) == min(row + 1, 5)
        assert {0, row, max(row - 1, 0)} <= set(kept)
    drawn = torch.zeros(40)
    for seed in range(300):
        kept = BigBird(16, window=1, global_=1, random=2, seed=seed).at(640, causal=True).kept[30]
        drawn[[column for column in kept if column not in (0, 30)]] += 1
    # 29 columns share 600 draws: about 21 each.
    assert float(drawn[1:30].min()) > 5
    assert float(drawn[1:30].max()) < 45
