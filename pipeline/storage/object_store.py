"""Run folders and shards in an object store: S3 and compatible stores, Google Cloud Storage, Azure.

Writing an object is atomic, so publishing is one conditional put (`If-None-Match: *`). Stores without conditional puts
are refused. Credentials and endpoints come from the usual environment variables (`AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, ...).
"""

import contextlib
import io
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError, PreconditionError
from obstore.store import from_url

from pipeline.errors import ConfigError, StoreError, first_line
from pipeline.storage.base import Listed, Stat
from pipeline.storage.checksums import CHECKED_FORMAT
from pipeline.storage.object_file import ChecksummedFile, DeadlockFreeDataset

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")
TRIES = 6
"""Attempts per request, with pauses of random length between them."""
_LONGEST_PAUSE = 8.0
_ATTEMPT = "attempt"


class ObjectStore:
    """The objects under one prefix of a bucket.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://...` or `az://...`.
        seconds: timeout of one request.
        where: the setting that the URL comes from, for messages.

    Raises:
        ConfigError: the URL is not supported, contains credentials, or is rejected by the client library.
    """

    def __init__(self, url: str, seconds: float = 30.0, where: str = "output.path") -> None:
        self.url = url.rstrip("/")
        if "@" in url.partition("://")[2].partition("/")[0] or "?" in url:
            raise ConfigError.one(
                where, "credentials and queries do not belong in a URL", "put them in the environment"
            )
        if url.partition("://")[0] not in _SUPPORTED:
            raise ConfigError.one(where, f"'{self.url}' has an unsupported scheme", _SCHEMES)
        try:
            self._client = client_options(seconds)
            self._objects: Any = from_url(self.url, client_options=self._client, retry_config=no_retries())
        except (BaseError, ValueError) as error:
            raise ConfigError.one(where, f"'{self.url}': {_reason(error)}", _SCHEMES) from None

    def publish(self, name: str, data: bytes) -> bool:
        """Put an object unless the name is taken.

        Each call tags its object with a unique id. If the response to an earlier attempt was lost, the call recognises
        its own object by this id.
        """
        attempt = uuid.uuid4().hex
        try:
            self._with_retries("publish", name, lambda: self._put(name, data, attempt))
        except FileExistsError:
            try:
                if self._with_retries("read", name, lambda: self._attempt_of(name)) != attempt:
                    return False
            except FileNotFoundError:
                raise StoreError(f"{self.url}/{name} disappeared while it was being published. {_ADVICE}") from None
        size = self._with_retries("check", name, lambda: self._stat(name).size)
        if size != len(data):
            raise StoreError(f"{self.url}/{name} has {size} bytes, but {len(data)} were written: the store is faulty")
        return True

    def replace(self, name: str, data: bytes) -> None:
        """Put an object in the place of another one, which is atomic."""
        self._with_retries("replace", name, lambda: obstore.put(self._objects, name, data, use_multipart=False))

    def read(self, name: str) -> bytes:
        """Read one object."""
        return self._with_retries("read", name, lambda: self._get(name)[0])

    def stat(self, name: str) -> Stat:
        """Request the size and ETag of one object; raise FileNotFoundError when it is absent."""
        return self._with_retries("get metadata of", name, lambda: self._stat(name))

    def piece(self, name: str, start: int, stop: int, etag: str | None) -> bytes:
        """Read exactly the bytes `start` to `stop` (exclusive) of an object.

        Raises:
            FileNotFoundError: the object is absent.
            StoreError: it cannot be read, or its ETag changed.
        """
        return self._with_retries("read", name, lambda: self._piece(name, start, stop, etag))

    def find(self, folder: str, *, deep: bool) -> list[str]:
        """List the full names of the objects directly under a prefix, or at any depth below it, sorted."""
        found = self._with_retries("list", folder, lambda: _confirmed(lambda: self._find(folder or None, deep=deep)))
        return sorted(found)

    def names(self, folder: str = "") -> list[str]:
        """List the names directly under a prefix, sorted; return an empty list if there are none."""
        paths = self._with_retries("list", folder, lambda: _confirmed(lambda: self._listing(folder)))
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def listed(self) -> list[Listed]:
        """List the objects directly under the prefix, sorted by name, with one request per page."""
        found = self._with_retries("list", "", lambda: _confirmed(lambda: self._objects_in(None)))
        files = (
            Listed(meta["path"].rpartition("/")[2], meta["size"], meta["last_modified"].timestamp()) for meta in found
        )
        return sorted(files, key=lambda file: file.name)

    def delete(self, name: str) -> None:
        """Remove one object."""
        with contextlib.suppress(FileNotFoundError):
            self._with_retries("delete", name, lambda: obstore.delete(self._objects, name))

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet objects as one dataset; reading fetches only the ranges it needs."""
        system = pyarrow.fs.PyFileSystem(_ObjectFileSystem(self))
        opened = pyarrow.dataset.dataset(list(names), format=CHECKED_FORMAT, filesystem=system)
        return DeadlockFreeDataset(list(opened.get_fragments()), opened.schema, opened.format, opened.filesystem)

    def check_writable(self) -> None:
        """Raise StoreError if the bucket cannot be listed or the store overwrites objects; leave nothing behind."""
        self.names()
        name = f".camatlas-{uuid.uuid4().hex}.tmp"
        try:
            if not self.publish(name, b"first") or self.publish(name, b"second"):
                raise StoreError(
                    f"{self.url} overwrites existing objects (it ignores If-None-Match), so two workers could "
                    "overwrite each other's rows. Use a store with conditional puts, or a local folder."
                )
        finally:
            self.delete(name)

    def _put(self, name: str, data: bytes, attempt: str) -> None:
        try:
            obstore.put(self._objects, name, data, mode="create", attributes={_ATTEMPT: attempt}, use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as error:
            raise FileExistsError(name) from error

    def _stat(self, name: str) -> Stat:
        found = obstore.head(self._objects, name)
        if found["e_tag"] is None:
            raise GenericError(_NO_OBJECT)
        return Stat(found["size"], found["e_tag"])

    def _get(self, name: str) -> tuple[bytes, "Attributes"]:
        """Read an object and its attributes.

        Requests a range, because the response then states the total size. This exposes truncated objects, and errors
        that a store sends with a success status.
        """
        try:
            found = obstore.get(self._objects, name, options={"range": {"offset": 0}})
        except BaseError as error:
            if _status(error) != _NO_RANGE:
                raise
            found = obstore.get(self._objects, name)  # an empty object has no range
        data = bytes(found.bytes())
        if len(data) != found.meta["size"]:
            raise GenericError(f"received {len(data)} of {found.meta['size']} bytes")
        if found.meta["e_tag"] is None:
            raise GenericError(_NO_OBJECT)
        return data, found.attributes

    def _listing(self, folder: str) -> list[str]:
        found = obstore.list_with_delimiter(self._objects, prefix=folder or None)
        return [*found["common_prefixes"], *(meta["path"] for meta in found["objects"])]

    def _objects_in(self, folder: str | None) -> "Sequence[ObjectMeta]":
        return obstore.list_with_delimiter(self._objects, prefix=folder)["objects"]

    def _piece(self, name: str, start: int, stop: int, etag: str | None) -> bytes:
        options: GetOptions = {"range": (start, stop)} if etag is None else {"range": (start, stop), "if_match": etag}
        try:
            found = obstore.get(self._objects, name, options=options)
        except PreconditionError:
            found = None
        if found is None or (etag is not None and found.meta["e_tag"] != etag):  # a store may ignore the condition
            raise StoreError(f"{self.url}/{name} was replaced during the run. {REPLACED}")
        data = bytes(found.bytes())
        if len(data) != stop - start:
            raise GenericError(f"received {len(data)} of {stop - start} requested bytes")
        return data

    def _find(self, folder: str | None, *, deep: bool) -> list[str]:
        if not deep:
            return [meta["path"] for meta in self._objects_in(folder)]
        return [meta["path"] for page in obstore.list(self._objects, prefix=folder) for meta in page]

    def _attempt_of(self, name: str) -> str | None:
        found: str | None = self._get(name)[1].get(_ATTEMPT)
        return found

    def _with_retries(self, verb: str, name: str, request: Callable[[], T]) -> T:
        """Send a request, again after transient errors; raise at once if the store refuses it."""
        for pause in [*_pauses(), None]:
            try:
                return request()
            except (BaseError, FileNotFoundError) as error:
                if any(f"<Code>{code}</Code>" in str(error) for code in _NO_BUCKET):
                    raise StoreError(f"the bucket of {self.url} does not exist. {_CREATE_BUCKET}") from None
                if isinstance(error, (NotFoundError, FileNotFoundError)):
                    raise FileNotFoundError(f"{self.url}/{name}") from None
                if pause is None or _is_refusal(error):
                    raise StoreError(f"cannot {verb} {self.url}/{name}: {_reason(error)}. {_ADVICE}") from error
                time.sleep(pause)
        raise AssertionError("the last pause is None")


class _ObjectFileSystem(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """A pyarrow file system over an ObjectStore, so that reads are retried and an outage is not taken for absence."""

    def get_type_name(self) -> str:
        """Return the type name of the file system."""
        return "objects"

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open an object for random access; the buffer completes short reads without reading ahead."""
        store: ObjectStore = self.fs
        file = io.BufferedReader(ChecksummedFile(store, path, store.stat(path), _PIECE_BYTES), buffer_size=1)
        return pa.PythonFile(file, mode="r")


_PIECE_BYTES = 4 << 20
"""Maximum bytes per request when reading parts."""
_TRY_AGAIN = ("408", "409", "429")
"""HTTP statuses that are retried: timeout, conflict with a concurrent put, too many requests."""
_NO_RANGE = "416"
_NO_OBJECT = "the response has no ETag, so it does not describe an object"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_CREATE_BUCKET = "Correct the URL, or create the bucket."
_METADATA_SERVICE = "169.254.169.254"
_SUPPORTED = ("s3", "gs", "az")
_SCHEMES = "a local path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_ADVICE = "Finished chunks are kept. Check that the store can be reached, then run the same command again."
REPLACED = (
    "One run must not mix rows of both versions. Finished chunks are kept. Restore the old object and run the same "
    "command again, or start a new run in another folder."
)


def _pauses() -> Iterator[float]:
    """Yield the pauses between attempts: random, up to an exponentially growing limit ("full jitter")."""
    return (random.uniform(0, min(_LONGEST_PAUSE, 0.2 * 2**n)) for n in range(TRIES - 1))  # noqa: S311 - no secret


def client_options(seconds: float) -> "ClientConfig":
    """Return the client options: timeouts, and plain HTTP only if AWS_ENDPOINT_URL uses it."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"timeout": timedelta(seconds=seconds), "connect_timeout": timedelta(seconds=10), "allow_http": plain}


def no_retries() -> "RetryConfig":
    """Disable the library's retries: it would not recognise its own object after a retried put, `publish` does."""
    return {"max_retries": 0, "retry_timeout": timedelta(seconds=600)}


def _confirmed(request: Callable[[], Sequence[T]]) -> Sequence[T]:
    """Request a listing, and again if it is empty: the library reads an error with a success status as empty."""
    return request() or request()


def _status(error: BaseException) -> str:
    """Return the HTTP status in an error, or an empty string if the store did not respond."""
    found = re.search(r"status code: (\d{3})", str(error))
    return found[1] if found else ""


def _is_refusal(error: BaseException) -> bool:
    """Return whether the store refused a request, so that repeating it is useless."""
    status = _status(error)
    refused = status.startswith("4") and status not in _TRY_AGAIN
    return refused or type(error) is not GenericError


def _reason(error: BaseException) -> str:
    """Return the store's error code, or the first line of the library's message."""
    if _METADATA_SERVICE in str(error):  # without keys, the library requests a role here
        return "no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return f"the store returned {code[1]}" if code else first_line(error).partition("Debug source")[0].strip()
