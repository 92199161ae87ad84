from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
        "attlas: reading: 33%, about 20 s left",
        "attlas: reading: 67%, about 10 s left",
        "attlas: reading: 100%",
    ]


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *calls: tuple[float, int, str]) -> str:
    """Return the last line after calls of (seconds since the one before, done of 300, what)."""
    monkeypatch.setattr(common, "_LINE_EVERY", 0.0)
    clock = _Clock(monkeypatch)
    with common.reporting() as progress:
        for seconds, done, what in calls:
            clock.now += seconds
            progress(done, 300, what)
    return capsys.readouterr().err.splitlines()[-1].removeprefix("attlas: ")


def test_no_time_is_guessed_before_it_can_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first step may have taken long before it is told of; and of a few quick steps nothing follows.
    assert told(monkeypatch, capsys, (20, 1, "measuring")) == "measuring: 0%"
    assert told(monkeypatch, capsys, (20, 1, "measuring"), (2.5, 30, "measuring")) == "measuring: 10%"
    assert told(monkeypatch, capsys, (20, 1, "measuring"), (60, 9, "measuring")) == "measuring: 3%"
    assert told(monkeypatch, capsys, (20, 0, "measuring"), (10, 30, "measuring")) == "measuring: 10%, about 90 s left"
    assert told(monkeypatch, capsys, (20, 0, "measuring"), (60, 30, "measuring")) == "measuring: 10%, about 9 min left"


def test_another_word_for_the_same_count_does_not_forget_what_it_took(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = ((1, 0, "text 1"), (50, 100, "text 1"), (0.1, 100, "text 2"))
    assert told(monkeypatch, capsys, *going_on) == "text 2: 33%, about 100 s left"
    anew = ((1, 0, "text 1"), (50, 100, "text 1"), (0.1, 1, "plans"))
    assert told(monkeypatch, capsys, *anew) == "plans: 0%"


def test_a_file_is_named_for_what_will_be_in_it(tmp_path: Path) -> None:
    common.check_suffix("--out", None, ".json")
    common.check_suffix("--out", tmp_path / "Plan.JSON", ".json")
    with pytest.raises(ArgumentError, match=r"--plot: wanted a \.png or \.svg file, got .*wall\.pdf"):
        common.check_suffix("--plot", tmp_path / "wall.pdf", ".png", ".svg")


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
    assert "left" not in drawn


def test_a_terminal_is_told_the_same_time_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    clock = _Clock(monkeypatch)
    with common.reporting() as progress:
        for done in range(0, 60, 10):
            clock.now += 1
            progress(done, 100, "reading")
    assert "about 5 s left" in terminal.getvalue()


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
