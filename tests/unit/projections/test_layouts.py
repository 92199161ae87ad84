"""Where heads lie in a weight: every layout that models use is among the slots, and is taken as a view."""

import pytest
import torch

from attlas.projections.layouts import Heads, slots

ROLES = ("query", "key", "value")


def marked(heads: Heads) -> dict[str, torch.Tensor]:
    """Each role's output features, with numbers that tell which they are: (head, width)."""
    start, found = 0, {}
    for role in ROLES:
        count, width = heads.of(role)
        found[role] = torch.arange(start, start + count * width).view(count, width)
        start += count * width
    return found


def fused(kind: str, heads: Heads) -> torch.Tensor:
    """Lay the features out as a fused projection of this kind does."""
    q, k, v = (marked(heads)[role] for role in ROLES)
    return {
        "concatenated": lambda: torch.cat([q.flatten(), k.flatten(), v.flatten()]),
        "values first": lambda: torch.cat([v.flatten(), q.flatten(), k.flatten()]),
        "each head": lambda: torch.stack([q, k, v], dim=1).flatten(),
        "groups": lambda: torch.cat(
            [q.unflatten(0, (heads.kv_heads, heads.group)), k[:, None], v[:, None]], dim=1
        ).flatten(),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "heads"),
    [
        ("concatenated", Heads(4, 4, 8, 8)),
        ("concatenated", Heads(4, 2, 8, 8)),
        ("concatenated", Heads(4, 1, 8, 8)),
        ("concatenated", Heads(4, 2, 8, 6)),
        ("values first", Heads(4, 4, 8, 8)),
        ("each head", Heads(4, 4, 8, 8)),
        ("groups", Heads(4, 2, 8, 8)),
    ],
)
def test_a_fused_layout_is_among_the_slots(kind: str, heads: Heads) -> None:
    out = fused(kind, heads)
    for role in ROLES:
        found = [slot.take(out) for slot in slots(role, out.shape[0], heads)]
        assert any(torch.equal(taken, marked(heads)[role]) for taken in found), role
        assert all(taken.shape == heads.of(role) for taken in found)


def test_keys_and_values_may_be_fused_without_the_queries() -> None:
    heads = Heads(4, 2, 8, 8)
    k, v = marked(heads)["key"], marked(heads)["value"]
    for out in (torch.cat([k.flatten(), v.flatten()]), torch.stack([k, v], 1).flatten()):
        for role in ("key", "value"):
            assert any(torch.equal(slot.take(out), marked(heads)[role]) for slot in slots(role, 32, heads))
    assert not list(slots("query", 24, heads))


def test_a_gate_lies_beside_its_queries() -> None:
    heads = Heads(4, 2, 8, 8)
    q, gate = torch.arange(32).view(4, 8), torch.arange(100, 132).view(4, 8)
    for out in (torch.cat([q, gate], dim=1).flatten(), torch.cat([q.flatten(), gate.flatten()])):
        right = [slot for slot in slots("query", 64, heads) if torch.equal(slot.take(out), q)]
        assert any(slot.gate is not None and torch.equal(slot.gate.take(out), gate) for slot in right)


def test_slots_are_views() -> None:
    heads = Heads(4, 4, 8, 8)
    weight = torch.randn(96, 5)
    for role in ROLES:
        for slot in slots(role, 96, heads):
            taken = slot.take(weight)
            assert taken.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
            assert taken.shape == (4, 8, 5)


def test_a_projection_of_another_size_has_no_slot() -> None:
    assert not list(slots("key", 50, Heads(4, 2, 8, 8)))
