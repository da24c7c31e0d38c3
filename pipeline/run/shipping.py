"""Sends a run's objects to its workers, together with the user's own modules, which workers may not be able to import.

Like `pipeline.run.dataflow`, it imports Ray.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from pipeline.errors import ConfigError, first_line
from pipeline.settings.entry_points import METHOD_GROUP, METRIC_GROUP
from pipeline.settings.functions import modules_beside
from pipeline.settings.plugins import classes_of
from pipeline.settings.run_file import RunConfig

Shipped = TypeVar("Shipped")
_PICKLE: Any = ray.cloudpickle


def ship(thing: Shipped, config: RunConfig, where: str) -> "ray.ObjectRef[Shipped]":
    """Put an object into Ray's store; what the modules of the run file's functions define travels by value.

    Args:
        thing: the object.
        config: the run file.
        where: the key of the run file whose objects it holds.

    Raises:
        ConfigError: the object cannot be pickled.
    """
    try:
        with _travelling_whole(config):
            return ray.put(thing)
    except RayError:  # such as a full store
        raise
    except Exception:  # a module may hold a lock, a file or a connection; workers may be able to import it
        try:
            return ray.put(thing)
        except Exception as error:  # pickling runs code of the user's classes
            raise ConfigError.one(
                where,
                f"it cannot be sent to the workers: {first_line(error.__cause__ or error)}",
                "leave out locks, open files and other objects that cannot be pickled",
            ) from error


@contextmanager
def _travelling_whole(config: RunConfig) -> Iterator[None]:
    """Pickle the modules of the user's functions by value, with their neighbours in the same folder."""
    known = _PICKLE.list_registry_pickle_by_value()
    modules = [module for module in modules_beside(_named_functions(config)) if module.__name__ not in known]
    for module in modules:
        _PICKLE.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            _PICKLE.unregister_pickle_by_value(module)


def _named_functions(config: RunConfig) -> list[str]:
    """Return the functions and classes that a run file names as `package.module:name`, or by an entry point."""
    names: list[object] = [config.model.name, config.model.layout, config.model.task, config.data.decoder]
    names += classes_of(config.explain.methods, METHOD_GROUP)
    names += classes_of(config.explain.metrics, METRIC_GROUP)
    return [name for name in names if isinstance(name, str) and ":" in name]
