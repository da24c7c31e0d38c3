"""A signal while modules are loaded: native ones take no exception, so the process leaves at once."""

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
    print("an exception came out of what a native module runs:", type(error).__name__)
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
def test_a_signal_while_modules_are_loaded_ends_the_command_without_an_exception(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    (tmp_path / "loaded.py").write_text(LOADED.format(number=int(number)))
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r})\n{COMMAND}"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, preexec_fn=heard)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")
