"""Ray's errors become one sentence with Ray's own reason, however deep that is."""

import pytest

from pipeline.errors import ConfigError, StalledError, StoreError
from pipeline.run.reasons import reason_of, unwrapped

ACTOR_DIED = """The actor died because of an error raised in its creation task, \x1b[36mray::MapWorker()\x1b[39m
           ^^^^^^^^^^^^
  File "x/actor_pool_map_operator.py", line 738, in __init__
    self._init_udf_with_retries(ctx)
  File "y.py", line 16, in __init__
    raise RuntimeError("CUDA error: no CUDA-capable device is detected")
RuntimeError: CUDA error: no CUDA-capable device is detected
CUDA kernel errors might be reported asynchronously
"""
"""As Ray 2.60 reports an error in an actor's constructor."""
NO_GCS = """Failed to connect to GCS. Last connection error: Traceback (most recent call last):
  File "ray/_private/node.py", line 996, in _init_gcs_client
    client = GcsClient(
ray.exceptions.AuthenticationError: Authentication token is missing or incorrect"""


class ActorDiedError(Exception):
    """As Ray's."""


class SystemException(Exception):  # noqa: N818 - the name that Ray uses
    """As Ray's, which says nothing."""


class RayTaskError(Exception):
    """As Ray's: a traceback as its message, and the original exception."""

    def __init__(self, message: str, cause: Exception) -> None:
        super().__init__(message)
        self.cause = cause


def raised(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


ERRORS: dict[str, tuple[Exception, str]] = {
    "an actor's constructor": (
        raised(ActorDiedError(ACTOR_DIED), SystemException()),
        "RuntimeError: CUDA error: no CUDA-capable device is detected",
    ),
    "a wrong token": (
        raised(ConnectionError("Failed to connect to Ray cluster at head:6379"), RuntimeError(NO_GCS)),
        "AuthenticationError: Authentication token is missing or incorrect",
    ),
    "a missing token": (
        PermissionError("Token authentication is enabled but no token was found."),
        "PermissionError: Token authentication is enabled but no token was found",
    ),
    "a full store": (
        RayTaskError("ray::ship() Traceback ...", MemoryError("The object store is full")),
        "MemoryError: The object store is full",
    ),
    "a secret": (OSError("https://me:word@host/?token=abc is gone"), "OSError: https://***@host/?token=*** is gone"),
    "nothing at all": (KeyError(), "KeyError:"),
}


@pytest.mark.parametrize("what", ERRORS)
def test_the_reason_is_one_line_without_tracebacks(what: str) -> None:
    error, reason = ERRORS[what]
    assert reason_of(error) == reason
    assert str(unwrapped(error)).startswith(f"the run stopped: {reason}. Finished chunks are kept")
    assert isinstance(unwrapped(error), StalledError)


def test_a_long_reason_is_cut() -> None:
    assert len(reason_of(OSError("x" * 50_000))) < 500
    long = OSError("The token is missing. Ensure that it is there. " + "For more information, see the pages. " * 20)
    assert reason_of(long).startswith("OSError: The token is missing. Ensure that it is there. For more")
    assert reason_of(long).endswith("see the pages")


def test_our_own_errors_are_found_inside() -> None:
    ours = StoreError("no space is left")
    assert unwrapped(RayTaskError("traceback", raised(ValueError("x"), ours))) is ours


def test_our_errors_of_a_constructor_arrive_as_text() -> None:
    text = f"The actor died\n  File x\n{ConfigError.__module__}.ConfigError: precision: tf32 needs an NVIDIA GPU"
    error = unwrapped(raised(ActorDiedError(text), SystemException()))
    assert "ConfigError: precision: tf32 needs an NVIDIA GPU" in str(error)
    assert ConfigError.__module__ not in str(error)
