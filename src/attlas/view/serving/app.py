"""What is served: the page's files, the desk's answers, and what the desk says unasked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, quote

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from attlas.view.desk import JSON, Answer, Desk, Event
from attlas.view.serving.assets import NOT_BUILT, Asset

WORKERS = 6
"""Requests that are answered at a time; a browser sends as many."""

MOST_PARAMETERS = 8

_LOOK = 0.5  # seconds between looks at whether the server is about to end
_BEAT = 15.0  # seconds after which a silent stream of events shows that it still lives


def make_app(desk: Desk, assets: Mapping[str, Asset], *, ending: Callable[[], bool] = lambda: False) -> FastAPI:
    """Return the application; it has to stand behind a `Guard`.

    Parameters
    ----------
    desk : Desk
        Who answers all that begins with ``/api/``.
    assets : mapping
        The page's files by path; none if the page is not built.
    ending : callable
        Whether the server is about to end; streams end then too.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="attlas-desk")
    app.state.workers = workers

    @app.api_route("/api/events", methods=["GET", "HEAD"])
    async def events(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_FRESH)
        return StreamingResponse(_events(desk, ending), media_type="text/event-stream", headers=_FRESH)

    @app.api_route("/api/{path:path}", methods=["GET", "HEAD"])
    async def api(request: Request) -> Response:
        return await _answered(desk, workers, request, ending)

    @app.api_route("/{path:path}", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        path = request.url.path
        if not assets and path == "/":
            return Response(NOT_BUILT + "\n", 503, media_type="text/plain", headers=_FRESH)
        found = assets.get(path)
        if found is None:
            return _plain(Answer.of({"error": "there is nothing at this address"}, 404))
        return Response(found.content, media_type=found.media_type, headers={"cache-control": found.caching})

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        del request
        return _plain(Answer.of({"error": "this cannot be asked here"}, error.status_code))

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        # The error itself goes on to the server's own log; whoever asked learns no more than that.
        del request, error
        return _plain(Answer.of({"error": "something went wrong here; the terminal says more"}, 500))

    return app


_FRESH = {"cache-control": "no-store"}


def _plain(answer: Answer) -> Response:
    headers = dict(_FRESH)
    if answer.name is not None:
        # To be saved and not to be shown: what is in a file is not of this server.
        headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(answer.name, safe='')}"
    return Response(answer.body, answer.status, media_type=answer.media_type, headers=headers)


async def _answered(desk: Desk, workers: ThreadPoolExecutor, request: Request, ending: Callable[[], bool]) -> Response:
    """Let the desk answer on a thread; drop the question when the one who asked has gone, or when the server ends."""
    pairs = parse_qsl(request.url.query, keep_blank_values=True, errors="replace")
    if len(pairs) > MOST_PARAMETERS or len({name for name, _ in pairs}) < len(pairs):
        return _plain(Answer.of({"error": f"query: wanted at most {MOST_PARAMETERS} parameters, each once"}, 422))
    path = request.scope["raw_path"].decode("ascii", "replace")
    gone = threading.Event()
    loop = asyncio.get_running_loop()
    answering = loop.run_in_executor(workers, lambda: desk.answer(path, dict(pairs), wanted=lambda: not gone.is_set()))
    leaving = asyncio.ensure_future(_until_gone(request))
    try:
        while not (answering.done() or leaving.done() or ending()):
            await asyncio.wait({answering, leaving}, timeout=_LOOK, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            gone.set()
            answering.cancel()  # if it has not begun, it never will
            return Response(b"", 499, media_type=JSON, headers=_FRESH)
        return _plain(answering.result())
    finally:
        gone.set()
        leaving.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _events(desk: Desk, ending: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield what the desk says, as server-sent events."""
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[Event] = asyncio.Queue()

    def hear(event: Event) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(said.put_nowait, event)

    end = desk.listen(hear)
    silent = 0.0
    try:
        yield b": attlas\n\n"
        while not ending():
            try:
                event = await asyncio.wait_for(said.get(), _LOOK)
            except TimeoutError:
                silent += _LOOK
                if silent >= _BEAT:
                    silent = 0.0
                    yield b": still here\n\n"
                continue
            data = json.dumps(event, allow_nan=False)
            yield f"event: {event['type']}\ndata: {data}\n\n".encode("ascii")
    finally:
        end()
