"""A driver that gets a signal to stop: it says how to resume, and exits with the code of the signal."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from faults.checker import check
from faults.test_kill import scenes_run


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_driver_that_is_stopped_says_how_to_resume(tmp_path: Path) -> None:
    """Stop it with SIGINT first, then resume it and stop it with SIGTERM."""
    run_file, run = scenes_run(tmp_path, "run", scenes=96)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        driver = subprocess.Popen(
            [sys.executable, "-m", "jobs.explain", str(run_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=partial(
                signal.signal, signal.SIGINT, signal.SIG_DFL
            ),  # background jobs of a shell ignore SIGINT
        )
        before, until = len(list(run.glob("*.parquet"))), time.monotonic() + 120
        while len(list(run.glob("*.parquet"))) == before and time.monotonic() < until:
            time.sleep(0.1)
        driver.send_signal(number)
        result, errors = driver.communicate(timeout=60)
        assert (driver.returncode, result) == (code, "")
        assert "Run the same command again to resume." in errors
        assert "Traceback" not in errors
        assert check(run) == []
