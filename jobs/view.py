"""camatlas view: look at the images, maps and numbers of a run in the browser, on this machine only."""

import os
import sys
from typing import Annotated

import typer

from jobs.support.console import command, err, leave_after, out


@command
def view(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN [RUN2]", help="a run, a folder of runs, or two runs to compare")
    ],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="port of 127.0.0.1 (default: a free one)")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="only print the address")] = False,
) -> int:
    """Browse images, maps and numbers on this machine; nothing is written. Ctrl-C ends it."""
    from pipeline.viewer.library import Library, find_runs
    from pipeline.viewer.server import serve

    library = Library(find_runs(runs))
    try:
        library.get("")
        serve(library, port, lambda address: _announce(address, open_browser=not no_browser))
    except KeyboardInterrupt:
        err.say("ended")
    finally:
        library.close()
    return 0


def _announce(address: str, *, open_browser: bool) -> None:
    """Print the address, and open it where there is a display."""
    out.print(address)
    sys.stdout.flush()
    err.say("Ctrl-C ends the viewer. The address is a secret: anybody on this machine who has it can look, too.")
    if open_browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or sys.platform == "darwin"):
        import webbrowser

        webbrowser.open(address)


if __name__ == "__main__":
    leave_after(lambda: typer.run(view))
