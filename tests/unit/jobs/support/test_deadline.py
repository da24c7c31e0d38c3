"""A driver that hangs in native code is ended, and prints the stack of each thread."""

import subprocess
import sys

import pytest

HANGING = """
import ctypes
from jobs.support.deadline import Deadline
with Deadline({seconds}) as deadline:
    deadline.put_off({more})
    ctypes.PyDLL(None).{call}  # holds the GIL, as Ray does
print("went on")
"""


def ended(seconds: float, more: float, call: str) -> "subprocess.CompletedProcess[str]":
    code = HANGING.format(seconds=seconds, more=more, call=call)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("seconds", "more"), [(0.5, 0.5), (60, 0.5)])
def test_a_driver_that_hangs_in_native_code_is_ended_with_its_stacks(seconds: float, more: float) -> None:
    found = ended(seconds, more, "sleep(50)")
    assert found.returncode == 1
    assert found.stdout == ""
    assert "Timeout (0:00:00.500000)!" in found.stderr
    assert 'File "<string>", line 6' in found.stderr


def test_a_deadline_that_is_put_off_does_not_end_the_process() -> None:
    found = ended(0.5, 30, "sleep(2)")
    assert (found.returncode, found.stdout, found.stderr) == (0, "went on\n", "")
