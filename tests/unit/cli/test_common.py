from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import typer

from attlas.cli import common
from attlas.errors import ArgumentError, DocumentError


def _app(failure: BaseException | None = None) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def run(number: int = 1) -> None:
        if failure is not None:
            raise failure
        typer.echo(f"number {number}")

    return app


def _run(app: typer.Typer, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["attlas", *arguments])
        with pytest.raises(SystemExit) as exit_of_it:
            common.guarded(app)
    out, err = capsys.readouterr()
    return exit_of_it.value.code, out, err


def test_success_exits_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(_app(), capsys, "--number", "3") == (0, "number 3\n", "")


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (DocumentError("text: wanted text,\n got nothing"), "text: wanted text, got nothing"),
        (ArgumentError("scale: wanted a number"), "scale: wanted a number"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/out/atlas.html"),
            "/out/atlas.html: No space left on device; free some space there, or choose another folder",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/srv/x"),
            "/srv/x: Permission denied; choose a place that you may use",
        ),
        (OSError("something odd"), "something odd"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_exit_code_two(
    capsys: pytest.CaptureFixture[str], failure: Exception, said: str
) -> None:
    assert _run(_app(failure), capsys) == (2, "", f"attlas: error: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--colour"], "No such option: --colour"),
        (["--number", "three"], "Invalid value for '--number'"),
        (["--number"], "--number"),
        (["surplus"], "surplus"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, out, err = _run(_app(), capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.endswith("; see: attlas --help\n")
    assert err.count("\n") == 1


def test_an_interrupt_says_that_nothing_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(_app(KeyboardInterrupt()), capsys) == (130, "", "attlas: interrupted; nothing is left half-written\n")


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["attlas"])
    with pytest.raises(ZeroDivisionError):
        common.guarded(_app(ZeroDivisionError()))


def test_a_closed_pipe_is_not_worth_a_word() -> None:
    code = """
import typer
from attlas.cli.common import guarded
app = typer.Typer()
@app.command()
def run():
    for line in range(100_000):
        print(line)
guarded(app)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode != 0


def test_a_real_ctrl_c_ends_cleanly() -> None:
    # A test run in the background of a shell inherits that Ctrl-C is ignored; a terminal's program does not.
    code = """
import signal, time, typer
from attlas.cli.common import guarded
signal.signal(signal.SIGINT, signal.default_int_handler)
app = typer.Typer()
@app.command()
def run():
    print("ready", flush=True)
    time.sleep(60)
guarded(app)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "attlas: interrupted; nothing is left half-written\n"
    assert process.returncode == 130


def test_json_has_no_word_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    common.print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": "é <b>", "d": (None, True)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": "é <b>", "d": [None, True]}


class _Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_quick_work_reports_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock(monkeypatch)
    with common.reporting() as progress:
        for done in range(10):
            clock.now += 0.05
            progress(done, 10, "reading")
    assert capsys.readouterr().err == ""


def test_long_work_writes_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock(monkeypatch)
    with common.reporting() as progress:
        for done in range(1, 31):
            clock.now += 1
            progress(done, 30, "reading")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "attlas: reading: 33%, about 18 s left",
        "attlas: reading: 67%, about 10 s left",
        "attlas: reading: 100%, about 0 s left",
    ]


def test_a_terminal_gets_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(common, "_QUIET_FOR", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    with common.reporting() as progress:
        progress(1, 4, "reading [b]")
        progress(2, 4, "reading [b]")
        progress(1, 2, "writing")
    drawn = terminal.getvalue()
    assert "reading [b]" in drawn
    assert "writing" in drawn
    assert "50%" in drawn


def test_the_console_reads_no_markup_into_a_text() -> None:
    out = io.StringIO()
    shown = common.console()
    shown.file = out
    shown.print("[red]not red[/red] :smile:")
    assert out.getvalue() == "[red]not red[/red] :smile:\n"


def test_help_and_version_need_no_torch() -> None:
    code = """
import sys
from attlas.cli.app import app
for arguments in (["--help"], ["--version"], ["models", "--help"], ["models", "add", "--help"]):
    app(arguments, standalone_mode=False)
heavy = {"torch", "transformers", "numpy", "rich", "matplotlib", "pyarrow"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert "attlas 0." in done.stdout
