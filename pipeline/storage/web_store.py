"""Files of a web server, read with range requests under the same rules as objects of a store.

A server that sends no ETag is asked for the time of the last change instead: a file that was replaced is not read.
"""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, GenericError, PreconditionError
from obstore.store import from_url

from pipeline.errors import ConfigError, StoreError
from pipeline.storage.base import Stat
from pipeline.storage.object_store import REPLACED, ObjectStore, client_options, no_retries

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ObjectMeta

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NAMES = "name each file; braces stand for numbers: shard-{000..049}.tar"
_CHANGED = "changed "
"""Marks a version that is not an ETag."""


class WebStore(ObjectStore):
    """The files of one web server, which are only read.

    Args:
        url: `https://HOST`; `http://` only for this machine, because anyone on the way could change the files.
        seconds: timeout of one request.
        where: the setting that the URL comes from, for messages.

    Raises:
        ConfigError: the URL contains credentials, or is not encrypted.
    """

    def __init__(self, url: str, seconds: float = 30.0, where: str = "data.shards") -> None:
        self.url, self._where = url.rstrip("/"), where
        parts = urlsplit(self.url)
        if "@" in parts.netloc or "?" in url:
            raise ConfigError.one(where, "credentials and queries do not belong in a URL", "use a store with roles")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ConfigError.one(where, f"'{self.url}' is not encrypted, so its files may be changed", "use https")
        options = client_options(seconds) | {"allow_http": parts.scheme == "http"}
        try:
            self._objects = from_url(self.url, client_options=options, retry_config=no_retries())
        except (BaseError, ValueError):
            raise ConfigError.one(where, f"'{self.url}' is not the URL of a web server", "https://HOST/FILE") from None

    def find(self, folder: str, *, deep: bool) -> list[str]:  # noqa: ARG002 - as the other stores
        """Refuse to list: web servers have no listing."""
        raise ConfigError.one(self._where, f"'{self.url}' is a web server, which does not list its files", _NAMES)

    def _stat(self, name: str) -> Stat:
        found = obstore.head(self._objects, name)
        return Stat(found["size"], _version(found))

    def _get(self, name: str) -> tuple[bytes, "Attributes"]:
        found = obstore.get(self._objects, name)
        data = bytes(found.bytes())
        if len(data) != found.meta["size"]:
            raise GenericError(f"received {len(data)} of {found.meta['size']} bytes")
        return data, found.attributes

    def _piece(self, name: str, start: int, stop: int, etag: str | None) -> bytes:
        options: GetOptions = {"range": (start, stop)}
        if etag is not None and not etag.startswith(_CHANGED):
            options["if_match"] = etag
        try:
            found = obstore.get(self._objects, name, options=options)
        except PreconditionError:
            found = None
        if found is None or (etag is not None and _version(found.meta) != etag):
            raise StoreError(f"{self.url}/{name} was replaced during the run. {REPLACED}")
        data = bytes(found.bytes())
        if len(data) != stop - start:
            raise GenericError(f"received {len(data)} of {stop - start} requested bytes")
        return data


def _version(meta: "ObjectMeta") -> str:
    return meta["e_tag"] or _CHANGED + meta["last_modified"].isoformat()
