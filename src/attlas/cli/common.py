"""What every verb shares: how it fails, how it says how far it is, and how it speaks to machines.

Exit codes: 0; 2 after one line on what was wrong and the way out; 130 after Ctrl-C. Only results go to standard output,
everything else to standard error, so that a pipe or `--json` stays clean.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from attlas._tables import finite
from attlas.errors import ArgumentError, AttlasError, complaint

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

WRONG_INPUT = 2
INTERRUPTED = 130
_PIPE_CLOSED = 141  # what a shell reports for a program that wrote into a closed pipe
_QUIET_FOR = 1.0  # seconds before progress is worth a line
_LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal
_SURE_AFTER = 3.0  # seconds of a piece of work before the time that is left is guessed
_SURE_FROM = 0.03  # the share of it that has to be done by then
_MINUTE = 60.0

# Typer carries its own copy of click and shows only this leaf of its tree of usage errors; the parent is wrong usage of
# any kind.
_USAGE_ERROR: Any = typer.BadParameter.__bases__[0]
_WAYS_OUT = {
    errno.ENOSPC: "free some space there, or choose another folder",
    errno.EDQUOT: "free some space there, or choose another folder",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: one of its folders is a file",
    errno.EISDIR: "give a file, not a folder",
    errno.EEXIST: "choose another name, or move what is there",
}

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def guarded(app: typer.Typer) -> NoReturn:
    """Run a Typer app and exit: with one line instead of a traceback for whatever the user can mend."""
    try:
        code = app(standalone_mode=False, prog_name="attlas")
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_closed_pipe()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except _USAGE_ERROR as error:
        fail(_usage_line(error))
    except AttlasError as error:
        fail(str(error))
    except OSError as error:
        fail(_os_line(error))
    if code == INTERRUPTED:  # Typer turns Ctrl-C into this code
        print("attlas: interrupted; nothing is left half-written", file=sys.stderr)
    raise SystemExit(code if isinstance(code, int) else 0)


def fail(reason: str) -> NoReturn:
    """Print ``attlas: error: reason`` on one line of standard error and exit with 2."""
    line = " ".join(reason.split())
    print(f"attlas: error: {line}", file=sys.stderr)
    raise SystemExit(WRONG_INPUT)


def _usage_line(error: Any) -> str:
    reason = error.format_message().rstrip(".")
    return f"{reason}; see: {error.ctx.command_path if error.ctx is not None else 'attlas'} --help"


def _os_line(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename is not None else ""
    way_out = _WAYS_OUT.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {way_out}" if way_out else "")


def _leave_closed_pipe() -> NoReturn:
    # Python flushes standard output once more at its end; let that go nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(_PIPE_CLOSED)


def print_json(content: Any) -> None:
    """Print plain types as JSON; a number that is not finite becomes null, for JSON has no word for it."""
    typer.echo(json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False))


def check_suffix(option: str, path: Path | None, *suffixes: str) -> None:
    """Find out before long work that a file's name promises something else than will be in it.

    Raises
    ------
    ArgumentError
        It ends otherwise than all of the suffixes.
    """
    if path is not None and path.suffix.lower() not in suffixes:
        raise ArgumentError(complaint(option, wanted=f"a {' or '.join(suffixes)} file", got=str(path)))


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that reads no markup and no emoji codes into the text it is given."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


@contextmanager
def reporting() -> Iterator[Reporter]:
    """Show how far long work is, on standard error; nothing for work that is done within a second.

    Yields
    ------
    Reporter
        To be passed as `progress`: it is called as ``progress(done, total, what)``.
    """
    reporter = Reporter()
    try:
        yield reporter
    finally:
        reporter.close()


class Reporter:
    """Draws a bar with the time left on a terminal, or writes a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._spoke = self._began
        self._what: str | None = None
        self._total = self._done = 0
        self._since = self._began, 0
        self._bar: Progress | None = None
        self._task: Any = None
        self._terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take notice that `done` of `total` units are done."""
        now = time.monotonic()
        new, self._what = what != self._what, what
        # Another word for what is being done does not begin the count anew where the count goes on.
        if new and (total != self._total or done < self._done):
            self._since = now, done
        self._total, self._done = total, done
        if now - self._began < _QUIET_FOR:
            return
        left = self._left(now)
        if self._terminal:
            self._draw(left)
        elif now - self._spoke >= _LINE_EVERY:
            self._spoke = now
            print(f"attlas: {what or 'working'}: {_share(done, total)}{left and f', {left}'}", file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _draw(self, left: str) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        bar = self._bar
        if bar is None:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                # rich's own estimate takes what was done before the bar was drawn for the work of a moment.
                TextColumn("{task.fields[left]}", markup=False),
            )
            bar = self._bar = Progress(*columns, console=console(stderr=True), transient=True)
            bar.start()
        what = self._what or "working"
        if self._task is None:
            self._task = bar.add_task(what, total=self._total, left="")
        bar.update(self._task, description=what, completed=self._done, total=self._total, left=left)

    def _left(self, now: float) -> str:
        """Return about how long the work will still take; nothing before that can be told, and at the end."""
        began, before = self._since
        taken, done, missing = now - began, self._done - before, self._total - self._done
        if taken < _SURE_AFTER or done < max(1, _SURE_FROM * self._total) or missing <= 0:
            return ""
        left = taken * missing / done
        return f"about {left:.0f} s left" if left < 2 * _MINUTE else f"about {left / _MINUTE:.0f} min left"


def _share(done: int, total: int) -> str:
    return f"{100 * done / total:.0f}%" if total > 0 else f"{done}"
