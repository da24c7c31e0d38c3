"""Runs the pages on 127.0.0.1 until they are interrupted."""

import socket
from collections.abc import Callable

import uvicorn

from pipeline.errors import ConfigError
from pipeline.viewer.app import application
from pipeline.viewer.guard import new_token
from pipeline.viewer.library import Library

_GRACE_SECONDS = 2


def serve(library: Library, port: int, announce: Callable[[str], None]) -> None:
    """Serve a library until SIGINT or SIGTERM; `announce` gets the address once the port is taken.

    Raises:
        ConfigError: the port is in use.
    """
    with _listening(port) as listening:
        token = new_token()
        number = listening.getsockname()[1]
        config = uvicorn.Config(
            application(library, number, token), log_level="critical", access_log=False, ws="none", lifespan="on",
            timeout_graceful_shutdown=_GRACE_SECONDS, server_header=False, date_header=False, loop="asyncio",
        )  # fmt: skip
        announce(f"http://127.0.0.1:{number}/?token={token}")
        uvicorn.Server(config).run([listening])


def _listening(port: int) -> socket.socket:
    """Take a port of 127.0.0.1, a free one for 0."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(("127.0.0.1", port))
        listening.listen()  # a browser that is quicker than the server waits
    except (OSError, OverflowError) as error:
        listening.close()
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError.one("--port", f"cannot listen on {port}: {why}", "leave it out for a free port") from None
    return listening
