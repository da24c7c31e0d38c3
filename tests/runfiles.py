"""The smallest valid run file."""

from typing import Any

SMALLEST: dict[str, Any] = {"data": {"shards": "a.tar"}, "model": {"name": "m"}, "output": {"path": "out"}}
