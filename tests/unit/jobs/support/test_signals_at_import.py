"""A signal during an import ends the process at once, since native modules abort on an exception."""

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

LOADED = """
import os
try:
    os.kill(os.getpid(), {number})
except BaseException as error:
    print("an exception was raised in Python code run by a native module:", type(error).__name__)
"""
COMMAND = """
from jobs.support.console import command
@command
def verb() -> int:
    import loaded
    return 0
verb()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_an_import_ends_the_command_without_an_exception(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "loaded.py").write_text(LOADED.format(number=int(number)))
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r})\n{COMMAND}"]
    handle_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell ignore it
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=handle_sigint)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")
