"""The arithmetic of the overhead measurements."""

import mmap
import os
import subprocess
import sys
import time

import pytest

from pipeline.bench.memory import anonymous_megabytes, descendants, slope, worker_processes
from pipeline.bench.overhead import DriverCost, Mark, PipelineEfficiency, measured_span
from pipeline.errors import ConfigError


def test_the_slope_is_a_least_squares_fit() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)
    assert slope([0, 1, 2, 3], [0, 1, 1, 0]) == pytest.approx(0)
    with pytest.raises(ValueError, match="two different x"):
        slope([3, 3], [1, 2])


def test_derived_figures_are_ratios_of_the_counts() -> None:
    assert DriverCost(workers=64, chunks=500, cpu_seconds=0.25, seconds=9).ms_per_chunk == pytest.approx(0.5)
    assert PipelineEfficiency(workers=2, bare=10, pipeline=19).efficiency == pytest.approx(0.95)


def test_start_and_end_of_a_run_are_not_measured() -> None:
    marks = [Mark(chunk, 4 * chunk, float(chunk), 0.0) for chunk in range(1, 101)]
    first, last = measured_span(marks)
    assert (first.chunks, last.chunks) == (10, 91)
    assert measured_span(marks[:3]) == (marks[0], marks[2])
    with pytest.raises(ConfigError, match="too few"):
        measured_span(marks[:2])


def test_growing_memory_of_a_process_is_measured() -> None:
    before = anonymous_megabytes(os.getpid())
    with mmap.mmap(
        -1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    ) as held:  # no freed memory is used again
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        assert 45 < anonymous_megabytes(os.getpid()) - before < 60


def test_descendants_are_found_and_ended_processes_have_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in descendants(os.getpid())
        assert worker_processes() == []
    finally:
        child.kill()
        child.wait()
    time.sleep(0.1)
    assert anonymous_megabytes(child.pid) == 0
