"""Reports for restricted readers: without original images, or with image keys replaced by keyed hashes."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from pipeline.audit.facts import Audited
from pipeline.errors import ConfigError

_MIN_SECRET_BYTES = 16
_KEYS = ("image_key", "example")
_TEXTS = ("detail", "problems")
"""Free texts of failures, which may contain image keys."""


def check_secret(secret: bytes) -> None:
    """Raise ConfigError for a secret that is shorter than 16 bytes."""
    if len(secret) < _MIN_SECRET_BYTES:
        raise ConfigError.one("--redact-keys", f"the file has {len(secret)} bytes", f"use {_MIN_SECRET_BYTES} or more")


def redacted(audited: Audited, secret: bytes) -> Audited:
    """Replace every image key by a keyed hash (HMAC-SHA256, 16 hex digits), and remove the free texts of failures.

    Raises:
        ConfigError: the secret is shorter than 16 bytes.
    """
    check_secret(secret)

    def hidden(key: str) -> str:
        return hmac.new(secret, key.encode("utf-8", "backslashreplace"), hashlib.sha256).hexdigest()[:16]

    def walked(value: Any, name: str = "") -> Any:  # noqa: ANN401 - any JSON
        if name in _TEXTS:
            return [] if isinstance(value, list) else "(left out)"
        if name in _KEYS and isinstance(value, str):
            return hidden(value)
        if name == "nearest" and isinstance(value, list):
            return [[shard, hidden(key)] for shard, key in value]
        if isinstance(value, Mapping):
            return {key: walked(inner, str(key)) for key, inner in value.items()}
        return [walked(inner) for inner in value] if isinstance(value, list) else value

    pictures = {(shard, hidden(key)): picture for (shard, key), picture in audited.pictures.items()}
    return Audited(walked(audited.facts), pictures)


def without_pictures(audited: Audited) -> Audited:
    """Remove the original images; maps and numbers stay."""
    return Audited(audited.facts, {})
