"""camatlas query: a signal ends a query at once, even if the query would run forever."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import typer
from handmade import RunMaker
from typer.testing import CliRunner

from jobs.query import query
from jobs.support.console import EXIT_INTERRUPTED, EXIT_TERMINATED

ENDLESS = "SELECT sum(hash(range)) FROM range(1000000000000000)"


@pytest.fixture(autouse=True)
def _default_sigint_handler() -> Iterator[None]:
    """Handle SIGINT, which background jobs of a shell ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_TERMINATED)], ids=["INT", "TERM"]
)
def test_an_endless_query_ends_on_a_signal(small_run: RunMaker, number: signal.Signals, code: int) -> None:
    threads = threading.active_count()
    app = typer.Typer()
    app.command()(query)
    later = threading.Timer(0.5, os.kill, (os.getpid(), number))
    later.start()
    assert CliRunner().invoke(app, [str(small_run.folder), ENDLESS]).exit_code == code
    later.join()
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1, "the previous wakeup descriptor is restored"
