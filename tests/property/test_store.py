"""Whatever happens to a file's bytes, it opens as the same capture, or is refused."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attlas
from attlas.capture.packed import PackedMask, pack
from attlas.capture.visibility import Rule
from attlas.testing.tiny_models import TINY_MODELS


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, attlas.Capture]:
    tiny = next(tiny for tiny in TINY_MODELS if tiny.family == "Llama")
    model = tiny.build()
    with torch.no_grad(), attlas.capture(model) as cap:
        model(**tiny.inputs(length=6))
    path = cap.save(tmp_path_factory.mktemp("captures") / "doc.attlas")
    return path, path.read_bytes(), cap


def one_line(message: str) -> None:
    assert "\n" not in message


def opens_equal_or_is_refused(path: Path, content: bytes, cap: attlas.Capture) -> None:
    path.write_bytes(content)
    try:
        opened = attlas.open_capture(path, check=True)
    except attlas.StoreError as error:
        one_line(str(error))
        return
    assert opened.layers == cap.layers
    assert opened.provenance == cap.provenance
    assert opened.tokens == cap.tokens
    for one, other in zip(opened, cap, strict=True):
        assert torch.equal(one.to_dense(), other.to_dense())


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes(saved: tuple[Path, bytes, attlas.Capture], tmp_path: Path, data: st.DataObject) -> None:
    _, content, cap = saved
    changed = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    # Most of the bytes are numbers, whose digests catch everything alike; the header is where surprises would be.
    where = st.one_of(st.integers(0, 15), st.integers(8, header - 1), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(where)] = data.draw(st.integers(0, 255))
    opens_equal_or_is_refused(tmp_path / "doc.attlas", bytes(changed), cap)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_moved_dropped_and_doubled(
    saved: tuple[Path, bytes, attlas.Capture], tmp_path: Path, data: st.DataObject
) -> None:
    _, content, cap = saved
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(len(content), begin + 200)))
    piece = data.draw(st.sampled_from([b"", content[begin:end] * 2, content[begin:end][::-1], b"{}", b"\0" * 8]))
    opens_equal_or_is_refused(tmp_path / "doc.attlas", content[:begin] + piece + content[end:], cap)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 21)),
    seed=st.integers(0, 2**16),
)
def test_bits_say_what_the_mask_said(shape: tuple[int, int, int, int], seed: int) -> None:
    batch, heads, n_query, n_key = shape
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    bits = pack(Rule(mask=mask), batch, heads, n_query, n_key, mask.device)
    assert bits.shape == (batch, heads, n_query, -(-n_key // 8))
    rule = Rule(mask=PackedMask(bits, n_query, n_key))
    found = rule.seen(torch.arange(n_query), n_query, n_key)
    assert torch.equal(found.expand(shape), mask)
