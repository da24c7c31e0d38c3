"""Imports captum when it is needed, and runs it quietly, with random numbers of an image's own."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

import numpy as np
import torch

from pipeline.errors import ConfigError
from pipeline.model import noise


def captum_version() -> str:
    """Return the version of captum; raise ConfigError if it is not installed."""
    try:
        return version("captum")
    except PackageNotFoundError:
        raise ConfigError.one(
            "explain.methods", "captum is not installed", "run pip install 'camatlas[captum]'"
        ) from None


def captum_attr() -> ModuleType:
    """Import `captum.attr`, which takes seconds; raise ConfigError if it is not installed."""
    captum_version()
    with quietly():
        import captum.attr

    attr: ModuleType = captum.attr
    return attr


@contextmanager
def quietly() -> Iterator[None]:
    """Hide the warnings of captum, which tell that it sets hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def drawing(seed: int, key: str, purpose: str) -> Iterator[None]:
    """Seed all generators on the CPU from the run seed, the image key and the purpose, and restore them afterwards."""
    number = noise.seed_of(seed, key, purpose)
    before_python, before_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(number)  # the generators of other devices stay as they are
        random.seed(number)
        np.random.seed(number % 2**32)
        try:
            yield
        finally:
            random.setstate(before_python)
            np.random.set_state(before_numpy)
