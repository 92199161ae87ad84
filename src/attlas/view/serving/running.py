"""Runs the server: on this machine only, at a port of its own, until it is told to end."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from attlas.errors import AttlasError, StoreError
from attlas.view.desk import Desk
from attlas.view.serving.app import make_app
from attlas.view.serving.assets import Asset, assets_in
from attlas.view.serving.guard import MOST_AT_ONCE, Guard

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

HOST = "127.0.0.1"
PREFERRED = 8465
_M_ARENA_MAX = -8  # of glibc's malloc.h
_START = 10.0  # seconds within which a server on a thread has to listen


class Server:
    """Serves a desk; as a context, on a thread of its own.

    Parameters
    ----------
    desk : Desk
        Who answers; closed with the server.
    port : int
        Where to listen; another free port is taken if this one is in use, or 0.
    assets : mapping, optional
        The page's files; by default those that were built.

    Attributes
    ----------
    port : int
        Where it listens.
    """

    def __init__(self, desk: Desk, port: int = PREFERRED, *, assets: Mapping[str, Asset] | None = None) -> None:
        _share_arenas()
        self._desk = desk
        self._socket = listening_at(port)
        self.port: int = self._socket.getsockname()[1]
        app = make_app(desk, assets_in() if assets is None else assets, ending=lambda: self._server.should_exit)
        self._workers = app.state.workers
        self.guard = Guard(app, self.port)
        config = uvicorn.Config(
            self.guard,
            access_log=False,  # it would write the key into the log
            log_level="error",
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=2 * 64 * 1024,
            limit_concurrency=4 * MOST_AT_ONCE,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The address with its key, for the person alone."""
        return self.guard.address

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serve on this thread until Ctrl-C, then let go of everything.

        Parameters
        ----------
        ready : callable, optional
            Called on a thread of its own; the port can be connected to by then.
        """
        try:
            if ready is not None:
                threading.Thread(target=ready, name="attlas-showing", daemon=True).start()
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            return  # the usual way to end
        finally:
            self._let_go()

    def __enter__(self) -> Self:
        """Serve on a thread of its own."""
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="attlas-server", daemon=True
        )
        self._thread.start()
        ready = threading.Event()
        for _ in range(int(_START / 0.01)):
            if self._server.started or not self._thread.is_alive():
                break
            ready.wait(0.01)
        if not self._server.started:
            self._let_go()
            raise AttlasError("the server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._let_go()

    def _let_go(self) -> None:
        self._desk.close()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._socket.close()


def _share_arenas() -> None:
    """Let threads share memory that was freed, where the C library would let each keep tens of megabytes of its own."""
    if sys.platform == "linux":
        # A C library other than glibc has no such function.
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def listening_at(port: int) -> socket.socket:
    """Return a socket that listens on this machine only: at a port, or at a free one if it is in use.

    Raises
    ------
    StoreError
        No port is to be had.
    """
    for wanted in (port, 0):
        # Named as TCP, so that small answers are sent at once: asyncio turns waiting off for such sockets alone.
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if os.name == "posix":
            # Without this a port stays taken for a minute after a server on it has ended.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, wanted))
            found.listen(MOST_AT_ONCE)
        except OSError as error:
            found.close()
            if wanted == 0 or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise StoreError(f"port {wanted}: cannot be listened at ({error.strerror})") from error
            continue
        return found
    raise StoreError("no port can be listened at")


def show(address: str, say: Callable[[str], None]) -> None:
    """Open an address in the person's browser; say so if there is none.

    Parameters
    ----------
    address : str
    say : callable
        Called with one line.
    """
    # A browser in the terminal would take it from the server.
    named = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")))
    if not named and sys.platform not in ("darwin", "win32"):
        say("there is no browser here; open the address in yours")
        return
    try:
        opened = webbrowser.open(address)
    except webbrowser.Error:
        opened = False
    if not opened:
        say("no browser could be opened; open the address in yours")
