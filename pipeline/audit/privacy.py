"""A report for readers who may not see everything: without pictures, or with image keys that only we can undo."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from pipeline.audit.facts import Audited
from pipeline.errors import ConfigError

_LEAST_SECRET = 16
_KEYS = ("image_key", "example")
_TEXTS = ("detail", "problems")
"""Free texts of failures, which may quote keys."""


def redacted(audited: Audited, secret: bytes) -> Audited:
    """Write every image key as a keyed hash (HMAC-SHA256, 16 digits); free texts of failures are left out.

    Raises:
        ConfigError: the secret is shorter than 16 bytes.
    """
    if len(secret) < _LEAST_SECRET:
        raise ConfigError.one("--redact-keys", f"the file holds {len(secret)} bytes", f"give {_LEAST_SECRET} or more")

    def hidden(key: str) -> str:
        return hmac.new(secret, key.encode("utf-8", "backslashreplace"), hashlib.sha256).hexdigest()[:16]

    def walked(value: Any, name: str = "") -> Any:  # noqa: ANN401 - any JSON
        if name in _TEXTS:
            return [] if isinstance(value, list) else "(left out)"
        if name in _KEYS and isinstance(value, str):
            return hidden(value)
        if name == "nearest":
            return [[shard, hidden(key)] for shard, key in value]
        if isinstance(value, Mapping):
            return {own: walked(inner, str(own)) for own, inner in value.items()}
        return [walked(inner) for inner in value] if isinstance(value, list) else value

    pictures = {(shard, hidden(key)): picture for (shard, key), picture in audited.pictures.items()}
    return Audited(walked(audited.facts), pictures)


def without_pictures(audited: Audited) -> Audited:
    """Leave the originals out; maps and numbers stay."""
    return Audited(audited.facts, {})
