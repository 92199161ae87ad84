"""What is measured in a process of its own, because its peak memory counts: ``python -m benchmarks.tasks TASK``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path


def peak() -> int:
    """Return the process's largest memory so far, in bytes."""
    # Not getrusage: what it says of a fresh process begins with the memory of the one that started it.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Let `peak` begin again from what the process holds now; Linux alone can."""
    Path("/proc/self/clear_refs").write_text("5")


def long_head(length: str) -> None:
    """Ask a single very long head."""
    import torch

    from attlas import AttentionMatrix
    from attlas.matrix import Received, TopK, ask

    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, int(length), 64, generator=generator) for _ in range(2))
    begun = time.perf_counter()
    ask(AttentionMatrix(query, key, causal=True), Received(), TopK(8))
    print(time.perf_counter() - begun, peak())


def forward(tokens: str) -> None:
    """Run the model on the demo document, and nothing else."""
    from benchmarks.model import open_demo, plain_forward

    lm, text = open_demo(int(tokens))
    plain_forward(lm, text)
    print(len(lm.tokenize(text)), peak())


def compared(tokens: str) -> None:
    """Compare the model with an adapter on the demo document."""
    import attlas
    from benchmarks.comparing import QUERY_VALUE, write_adapter
    from benchmarks.model import open_demo

    lm, text = open_demo(int(tokens))
    with tempfile.TemporaryDirectory() as folder:
        attlas.compare(lm, write_adapter(lm.model, Path(folder), QUERY_VALUE), text)
    print(len(lm.tokenize(text)), peak())


def atlas(tokens: str) -> None:
    """Capture the demo document and write its atlas."""
    from attlas.view import write_atlas
    from benchmarks.model import open_demo

    lm, text = open_demo(int(tokens))
    with tempfile.TemporaryDirectory() as folder:
        write_atlas(lm.read(text), Path(folder))
    print(len(lm.tokenize(text)), peak())


def our_page(tokens: str) -> None:
    """Write our page for the first tokens of the demo document."""
    from attlas.view import write_atlas
    from benchmarks.model import open_demo

    lm, text = open_demo(int(tokens))
    captured = lm.read(text)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        write_atlas(captured, Path(folder))
        took = time.perf_counter() - begun
        print(took, (Path(folder) / "atlas.html").stat().st_size, peak(), len(captured.tokens or ()))


def bertviz_page(tokens: str) -> None:
    """Write BertViz's head view of the same text, from the model's own dense attention."""
    import torch
    from bertviz import head_view

    from benchmarks.model import open_demo

    lm, text = open_demo(int(tokens))
    document = lm.tokenize(text)
    lm.model.set_attn_implementation("eager")
    with torch.no_grad():
        attention = lm.model(torch.tensor([document.ids]), output_attentions=True).attentions
    begun = time.perf_counter()
    page = head_view(attention, document.tokens, html_action="return")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page.data)
        print(time.perf_counter() - begun, file.stat().st_size, peak(), len(document))


def composing(which: str, *shape: str) -> None:
    """Say how much memory the process held at most before the compositions of all heads, and after them."""
    from attlas.projections import projections
    from benchmarks.projections import bridged, large_model, ours, small_model, theirs

    model = (large_model if which == "large" else small_model)(*(int(number) for number in shape))
    held = bridged(model) if which == "theirs" else projections(model)
    forget_peak()
    before = peak()
    theirs(held) if which == "theirs" else ours(held)
    print(before, peak())


def explaining(method: str, tokens: str) -> None:
    """Explain the demo document's next token; or (none) run the model on it, and nothing else."""
    from benchmarks.explaining import explained
    from benchmarks.model import open_demo, plain_forward

    lm, text = open_demo(int(tokens))
    forget_peak()
    if method == "none":
        plain_forward(lm, text)
    else:
        explained(lm, text, method)
    print(len(lm.tokenize(text)), peak())


def dense_rollout(which: str, tokens: str) -> None:
    """Read the demo document and roll out its attention: lazily, densely, or (none) read it without attention."""
    from attlas.explain.reading import reading_of
    from benchmarks import explaining
    from benchmarks.model import open_demo, plain_forward

    lm, text = open_demo(int(tokens))
    forget_peak()
    begun = time.perf_counter()
    if which == "lazy":
        explaining.rolled_out(reading_of(lm, text, -1), lm.read(text))
    elif which == "dense":
        explaining.dense_rollout(explaining.dense_attention(lm, text))
    else:
        plain_forward(lm, text)
    print(time.perf_counter() - begun, len(lm.tokenize(text)), peak())


def far(method: str, tokens: str, layers: str) -> None:
    """Explain a made-up text with a model of random weights."""
    from benchmarks.explaining import explained, random_model

    lm = random_model(int(layers), int(tokens))
    text = list(range(100, 100 + int(tokens)))
    forget_peak()
    begun = time.perf_counter()
    explained(lm, text, method)
    print(time.perf_counter() - begun, peak())


def stock(family: str, way: str, tokens: str) -> None:
    """Run a family that has no fused path, and say how much memory the process held before and at most."""
    from benchmarks.stock import WAYS, build, text

    model, ids = build(family), text(int(tokens))
    # Whatever is imported or set up on first use is no part of it.
    WAYS[way](model, ids[:, :8])
    forget_peak()
    before = peak()
    WAYS[way](model, ids)
    print(before, peak())


def teach(folder: str, steps: str, batch: str) -> None:
    """Train an adapter until something stops it."""
    from benchmarks import lora

    lora.teach(folder, steps, batch)


def read_demo(tokens: str, file: str) -> None:
    """Save what the model does with the demo document."""
    from benchmarks.model import open_demo

    lm, text = open_demo(int(tokens))
    cap = lm.read(text)
    cap.save(file)
    print(len(cap.tokens or ()))


def read_far(tokens: str, layers: str, file: str) -> None:
    """Save what a model of random weights does with the demo document, over and over."""
    from benchmarks.explaining import random_model
    from benchmarks.model import open_demo

    lm = random_model(int(layers), int(tokens))
    text = open_demo()[1] * (1 + int(tokens) // 5000)
    ends = [end for _, end in lm.tokenize(text).offsets or ()]
    cap = lm.read(text[: ends[int(tokens) - 1]])
    cap.save(file)
    print(len(cap.tokens or ()))


def serve(file: str) -> None:
    """Serve the page of a capture until nobody asks any more; for each line, say how much memory that took at most."""
    from attlas import open_capture
    from attlas.cli.reading import checked
    from attlas.view.desk_captures import Exhibit
    from attlas.view.opening import open_desk
    from attlas.view.serving.running import Server

    cap = open_capture(file)
    exhibit = Exhibit(cap, Path(file).name, error=checked(cap))
    for number in cap.layers:
        # A file's pages count from when they are first read, and are the capture's, not the server's.
        cap[number].query.sum(), cap[number].key.sum()
    forget_peak()
    before, ready = peak(), time.time()
    with Server(open_desk([exhibit]), 0) as server:
        print(ready, server.address, flush=True)
        for _ in sys.stdin:
            print(peak() - before, flush=True)


_ALL = (
    long_head,
    forward,
    compared,
    atlas,
    our_page,
    bertviz_page,
    composing,
    explaining,
    dense_rollout,
    far,
    stock,
    teach,
    read_demo,
    read_far,
    serve,
)
TASKS = {task.__name__: task for task in _ALL}

if __name__ == "__main__":
    TASKS[sys.argv[1]](*sys.argv[2:])
