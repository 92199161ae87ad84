"""Whatever the sizes, the padding and the targets: a descent's gradients are those of one ordinary backward pass."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from attlas.capture.descent import descend


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_size(data: st.DataObject) -> None:
    groups, kv_heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    dim, layers = data.draw(st.sampled_from([2, 4, 8])), data.draw(st.integers(1, 4))
    batch, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=2 * groups * kv_heads,
        intermediate_size=5,
        num_hidden_layers=layers,
        num_attention_heads=groups * kv_heads,
        num_key_value_heads=kv_heads,
        head_dim=dim,
        pad_token_id=0,
    )
    model: Any = LlamaForCausalLM(config).eval().double()
    ids = torch.randint(1, 23, (batch, length))
    mask = torch.ones_like(ids)
    mask[0, length - data.draw(st.integers(0, length - 1)) :] = 0
    places = [
        (data.draw(st.integers(0, batch - 1)), data.draw(st.integers(0, length - 1)), data.draw(st.integers(0, 22)))
        for _ in range(data.draw(st.integers(1, 3)))
    ]

    def objective(output: Any) -> Tensor:
        return torch.stack([output.logits[place] for place in places])

    descent = descend(model, {"input_ids": ids, "attention_mask": mask}, objective, blocks=data.draw(st.booleans()))
    attended = list(descent)
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    values = objective(model(inputs_embeds=embeds, attention_mask=mask, use_cache=False))
    torch.testing.assert_close(descent.values, values.detach())
    for target, value in enumerate(values):
        truth = torch.autograd.grad(value, embeds, retain_graph=True)[0]
        # float64: what differs is the order of sums.
        torch.testing.assert_close(descent.embedding_gradients[target], truth, rtol=1e-9, atol=1e-12)
    assert [one.layer for one in attended] == list(range(layers))[::-1]
    for one in attended:
        assert one.value is not None
        assert one.output is not None
        for gradients in one.gradients:
            # O = A·V: what all outputs give back is what all values get.
            given_back = (gradients.output * one.output).sum((1, 2, 3))
            torch.testing.assert_close((gradients.value * one.value).sum((1, 2, 3)), given_back, rtol=1e-9, atol=1e-12)
