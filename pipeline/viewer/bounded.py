"""A cache with a bound on its bytes, which drops the values that were not used for longest; safe between threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """Remembers values up to a total size.

    Args:
        size: bytes of all values together.
        measure: returns the bytes of one value.
    """

    def __init__(self, size: int, measure: Callable[[T], int]) -> None:
        self._size, self._measure = size, measure
        self._held = 0
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()

    def peek(self, key: Hashable) -> T | None:
        """Return the value of a key if it is remembered."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, and make it if it is not remembered; two threads may make it twice."""
        found = self.peek(key)
        if found is not None:
            return found
        value = make()
        self.put(key, value)
        return value

    def put(self, key: Hashable, value: T) -> None:
        """Remember a value."""
        with self._lock:
            if key not in self._values:
                self._values[key] = value
                self._held += self._measure(value)
            while self._held > self._size and len(self._values) > 1:
                self._held -= self._measure(self._values.popitem(last=False)[1])
