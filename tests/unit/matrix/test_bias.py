"""Bias formulas give the numbers that the models they come from give."""

import torch

from attlas.matrix import ALiBi, AttentionMatrix, RelativeBias


def test_alibi_slopes_are_the_published_ones():
    torch.testing.assert_close(ALiBi.for_heads(8).slopes, torch.tensor([2.0 ** -(i + 1) for i in range(8)]))
    twelve = ALiBi.for_heads(12).slopes
    torch.testing.assert_close(twelve[:8], ALiBi.for_heads(8).slopes)
    torch.testing.assert_close(twelve[8:], torch.tensor([2.0**-0.5, 2.0**-1.5, 2.0**-2.5, 2.0**-3.5]))


def test_alibi_with_fewer_queries_than_keys_counts_from_the_last_rows():
    query, key = torch.randn(1, 4, 9, 8), torch.randn(1, 4, 9, 8)
    whole = AttentionMatrix(query, key, causal=True, bias=ALiBi.for_heads(4)).to_dense()
    tail = AttentionMatrix(query[:, :, 6:], key, causal=True, bias=ALiBi.for_heads(4)).to_dense()
    torch.testing.assert_close(tail, whole[:, :, 6:])


def test_relative_bias_equals_t5():
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    for decoder in (False, True):
        config = T5Config(d_model=16, num_heads=4, d_kv=4, is_decoder=decoder)
        attention = T5Attention(config, has_relative_attention_bias=True)
        theirs = attention.compute_bias(300, 300).detach()
        ours = RelativeBias.from_buckets(
            attention.relative_attention_bias.weight.detach(), 300, 300, bidirectional=not decoder
        )
        ids = torch.arange(300)
        heads = torch.arange(4).view(1, -1, 1, 1)
        got = ours(heads[:, :1], heads, ids.view(1, 1, -1, 1), ids.view(1, 1, 1, -1))
        torch.testing.assert_close(got, theirs)
