"""`attlas view`: explore the attention matrices of a document on a page."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attlas.cli.common import reporting
from attlas.cli.reading import HeadsOption, LayersOption, WindowOption, checked, loaded_model, numbers
from attlas.errors import ArgumentError, AttlasError, CaptureError, complaint

if TYPE_CHECKING:
    from attlas.capture import Capture, LanguageModel
    from attlas.view.desk_captures import Exhibit

PORT = 8465
CAPTURES = ".attlas"

_LENGTH = 8  # bytes of a safetensors file before its header, which begins with a brace


def open_view(
    file: Annotated[
        str,
        typer.Argument(
            help=f"A UTF-8 text file, - for standard input, or a capture that was saved ({CAPTURES}).", metavar="FILE"
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A bundled model, a Hugging Face id, or a local folder.", metavar="MODEL"),
    ] = None,
    layers: LayersOption = None,
    heads: HeadsOption = None,
    window: WindowOption = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Show beside it: a capture that was saved, another model on the same text, or the folder of an "
            "adapter for MODEL.",
            metavar="OTHER",
        ),
    ] = None,
    roles: Annotated[
        bool,
        typer.Option(
            "--roles", help="Measure what the heads do too, while the page is open; a capture needs a model too."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option("--port", help="Where to listen; another port is taken if it is in use.", min=0, max=65535)
    ] = PORT,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Open a page to explore every attention matrix of a document, from the whole of it down to single entries.

    The page is served on this machine alone, to whoever has the address that is printed. Ctrl-C ends it.

    For example:

    attlas view paper.txt --model smollm2-135m

    attlas view capture.attlas

    attlas view paper.txt --model smollm2-135m --against capture.attlas

    attlas view paper.txt --model smollm2-135m --roles
    """
    chosen = {"layers": numbers("--layers", layers), "heads": numbers("--heads", heads)}
    if roles and model is None and is_capture(file) and (against is None or is_capture(against)):
        way_out = "name it with --model"
        raise ArgumentError(complaint("--roles", wanted="the model that was captured", got="none", way_out=way_out))
    with reporting() as progress, _enough_memory():
        exhibits = _read(file, model, window, against, progress, chosen)
    _serve(exhibits, port, roles=roles, browser=not no_browser)


def _read(
    file: str, model: str | None, window: int | None, against: str | None, progress: Any, chosen: dict[str, Any]
) -> list[Exhibit]:
    """Read, or open, everything that is to be shown, and check it."""
    if is_capture(file):
        for option, value in (*((f"--{name}", value) for name, value in chosen.items()), ("--window", window)):
            if value is not None:
                raise ArgumentError(complaint(option, wanted="a text to read", got="a capture, which is shown whole"))
        reader = None if model is None else loaded_model(model, progress)
        shown = [_opened(file, reader)]
    else:
        from attlas.models.document import read_text

        # The text comes first: a wrong file should not cost the loading of a model, nor the choice of one.
        text = "" if file == "-" and model is None else read_text(file)
        if model is None:
            way_out = "name one, such as --model smollm2-135m; attlas models lists those that come with attlas"
            raise ArgumentError(complaint("--model", wanted="a model that reads the text", got="none", way_out=way_out))
        reader = loaded_model(model, progress, **chosen)
        name = "standard input" if file == "-" else Path(file).name
        shown = _exhibits(reader, text, name, window, progress, chosen)
    if against is None:
        return shown
    return [*shown, *_others(against, shown, reader, window, progress, chosen)]


def _others(
    against: str,
    shown: list[Exhibit],
    reader: LanguageModel | None,
    window: int | None,
    progress: Any,
    chosen: dict[str, Any],
) -> list[Exhibit]:
    """Read, or open, what is shown beside the first."""
    if is_capture(against):
        return [_opened(against, None)]
    texts = [exhibit.capture.text for exhibit in shown]
    if any(text is None for text in texts):
        raise ArgumentError(complaint("--against", wanted="a capture beside one that holds no text", got=repr(against)))
    title = f"{Path(against).name}: {shown[0].title}"
    text = "".join(text for text in texts if text is not None)
    from attlas.models.adapter_file import is_adapter

    if not is_adapter(against):
        return _exhibits(loaded_model(against, progress, **chosen), text, title, window, progress, chosen)
    if reader is None:
        way_out = "name the model that it was trained on with --model"
        raise ArgumentError(complaint("--against", wanted="a model or a capture", got="an adapter", way_out=way_out))
    from attlas.compare.sides import open_sides

    sides = open_sides(reader, against, {})
    with sides.as_tuned():
        shown = _exhibits(reader, text, title, window, progress, chosen, borrowed=True)
    # What was measured of the model's own weights is not true of these.
    name, fingerprint = f"{reader.name} with {Path(against).name}", f"{reader.facts.fingerprint}+{sides.fingerprint}"
    return [replace(one, capture=_renamed(one.capture, name, fingerprint)) for one in shown]


def _renamed(cap: Capture, name: str, fingerprint: str) -> Capture:
    """Return a capture that knows by what it was read."""
    return cap.of_document(cap.text or "", list(cap.tokens or ()), model=name, fingerprint=fingerprint)


def _exhibits(
    reader: LanguageModel,
    text: str,
    title: str,
    window: int | None,
    progress: Any,
    chosen: dict[str, Any],
    *,
    borrowed: bool = False,
) -> list[Exhibit]:
    """Read a text, in parts if need be, and check what was captured; a borrowed reader soon has other weights."""
    from attlas.view.desk_captures import Exhibit

    if window is None:
        captures: list[Capture] = [reader.read(text, progress=progress, **chosen)]
    else:
        captures = list(reader.read(text, window=window, progress=progress, **chosen))
    shown = []
    for i, cap in enumerate(captures):
        progress(i, len(captures), "checking")
        part = title if len(captures) == 1 else f"{title}, part {i + 1} of {len(captures)}"
        shown.append(Exhibit(cap, part, error=checked(cap), model=None if borrowed else reader))
    return shown


def _opened(file: str, reader: LanguageModel | None) -> Exhibit:
    """Open a capture that was saved, and check it."""
    from attlas.capture import open_capture
    from attlas.view.desk_captures import Exhibit

    cap = open_capture(file)
    known = cap.provenance.fingerprint
    if reader is not None and reader.facts.fingerprint != known:
        wanted = f"the model that was captured, {cap.provenance.model}"
        raise ArgumentError(complaint("--model", wanted=wanted, got=f"{reader.name}, whose weights are others"))
    return Exhibit(cap, Path(file).name, error=checked(cap), model=reader)


def is_capture(file: str) -> bool:
    """Tell whether a file is a capture, or is meant to be one: by its name, or by how it begins."""
    if file.lower().endswith(CAPTURES):
        return True
    path = Path(file)
    if file == "-" or not path.is_file():
        return False
    with path.open("rb") as opened:
        first = opened.read(_LENGTH + 1)
    return first[_LENGTH:] == b"{" and b"\0" in first[:_LENGTH]


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Turn the ways in which memory can be missing into one sentence."""
    try:
        yield
    except AttlasError:
        raise
    except (MemoryError, RuntimeError) as error:
        # PyTorch says so on a CPU with an error of no kind of its own.
        if isinstance(error, MemoryError) or "alloc" in str(error) or "out of memory" in str(error).lower():
            raise CaptureError(
                "out of memory while reading; hold less of it: --layers 0-3 or --heads 0,1 keeps fewer matrices, "
                "--window 4096 reads shorter parts; where the model itself has no room, only a smaller one helps"
            ) from error
        raise


def _serve(exhibits: list[Exhibit], port: int, *, roles: bool, browser: bool) -> None:
    """Show the page until Ctrl-C."""
    from attlas.view.opening import open_desk
    from attlas.view.serving.assets import NOT_BUILT, assets_in
    from attlas.view.serving.running import Server, show

    assets = assets_in()
    server = Server(open_desk(exhibits, measure_roles=roles), port, assets=assets)
    if not assets:
        _say(NOT_BUILT)
    if port not in (0, server.port):
        _say(f"port {port} is in use; {server.port} is taken instead")
    typer.echo(server.address)
    _say("open this address in a browser on this machine; Ctrl-C ends")
    server.run(ready=(lambda: show(server.address, _say)) if browser else None)
    _say("closed")


def _say(line: str) -> None:
    print(f"attlas: {line}", file=sys.stderr)
