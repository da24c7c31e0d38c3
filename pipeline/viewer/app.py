"""The pages by address, and what is answered when something is wrong: a sentence and the right status."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipeline.errors import CamatlasError, ConfigError, Mistake, first_line
from pipeline.viewer.classes import show_class, show_classes
from pipeline.viewer.comparison import show_comparison
from pipeline.viewer.drawing import Drawings, show_sheet
from pipeline.viewer.grid import show_grid, show_tiles
from pipeline.viewer.guard import Guard
from pipeline.viewer.image import show_image
from pipeline.viewer.library import Library
from pipeline.viewer.rendering import page, static
from pipeline.viewer.takeaway import keys_csv, show_picked, show_takeaway
from pipeline.viewer.visit import Visit, status_of

_THREADS = 6
_STATIC = {"view.css": "text/css; charset=utf-8", "view.js": "text/javascript; charset=utf-8"}
Page = Callable[[Visit], Response]
Picture = Callable[[Visit, Request], Response]


def application(library: Library, port: int, token: str) -> ASGIApp:
    """Build the server's pages around the runs of a library."""
    drawings = Drawings()
    pages: dict[str, Page] = {
        "/": show_grid, "/tiles": show_tiles, "/image": show_image, "/classes": show_classes, "/class": show_class,
        "/compare": show_comparison, "/takeaway": show_takeaway, "/keys.csv": keys_csv, "/picked": show_picked,
        "/sheet": show_sheet, "/reload": _reload,
    }  # fmt: skip
    pictures: dict[str, Picture] = {
        "/tile": drawings.tile, "/ground": drawings.ground, "/overlay": drawings.overlay, "/mean": drawings.mean,
            }  # fmt: skip
    routes = [Route(path, _page(library, show)) for path, show in pages.items()]
    routes += [Route(path, _picture(library, draw)) for path, draw in pictures.items()]
    routes.append(Route("/static/{name}", _static))
    handlers = {HTTPException: _refused, Exception: _broken}
    return Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=_few_threads), port, token)


def _page(library: Library, show: Page) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        try:
            return show(Visit.of(request, library))
        except (CamatlasError, OSError) as error:
            return _error_page(error)

    return answer


def _picture(library: Library, draw: Picture) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        try:
            return draw(Visit.of(request, library), request)
        except (CamatlasError, OSError) as error:
            status = status_of(error) if isinstance(error, CamatlasError) else 500
            return Response(f"{error}\n".encode("utf-8", "replace"), status, media_type="text/plain; charset=utf-8")

    return answer


def _reload(visit: Visit) -> Response:
    """Open the run again, with the chunks that were finished since, and show its grid."""
    visit.library.reload(visit.index.name)
    fresh = Visit(visit.library, visit.library.get(visit.index.name), visit.query)
    return RedirectResponse(fresh.link("/"), 303)


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        raise HTTPException(404)
    return Response(static(name), media_type=_STATIC[name], headers={"Cache-Control": "private, max-age=600"})


def _error_page(error: Exception) -> Response:
    """Render what is wrong, one sentence for each mistake."""
    if isinstance(error, ConfigError):
        mistakes = list(error.mistakes)
    else:
        mistakes = [Mistake("", str(error) if isinstance(error, CamatlasError) else first_line(error))]
    status = status_of(error) if isinstance(error, CamatlasError) else 503
    return page("error.html", status, mistakes=mistakes, status=status)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return page("error.html", error.status_code, mistakes=[Mistake("", _WORDS.get(error.status_code, error.detail))],
                status=error.status_code)  # fmt: skip


async def _broken(_: Request, error: Exception) -> Response:
    mistake = Mistake("", f"The viewer made a mistake: {first_line(error)}")
    return page("error.html", 500, mistakes=[mistake], status=500)


_WORDS = {404: "There is no page at this address."}


@asynccontextmanager
async def _few_threads(_: Starlette) -> AsyncIterator[None]:
    """Draw few pictures at the same time, so that memory stays bounded."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield
