"""Runs work in a process of its own, which may lack memory, lose its device or take too long without harm to others."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from pipeline.errors import first_line

Result = TypeVar("Result")


def apart(seconds: float, work: Callable[..., Result], *args: Any) -> Result | str:  # noqa: ANN401 - of the work
    """Run a function of a module in a new process; return its result, or a sentence about why there is none."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    running = pool.submit(work, *args)
    try:
        return running.result(timeout=seconds)
    except TimeoutError:
        for process in list(pool._processes.values()):  # no public way to end one that hangs
            process.kill()
        return f"not finished after {seconds:.0f} s"
    except BrokenProcessPool:
        return "the process died"
    except Exception as error:  # whatever the work raises
        return first_line(error)
    finally:
        pool.shutdown(cancel_futures=True)
