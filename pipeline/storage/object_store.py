"""Run folders and shards in an object store: S3 and what speaks like it, Google Cloud Storage, Azure.

An object appears whole or not at all, so that publishing is one conditional put (`If-None-Match: *`); a store that does
not know it is refused. Credentials and endpoints come from the ordinary environment (`AWS_ACCESS_KEY_ID`,
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
from pipeline.storage.checksums import CHECKED
from pipeline.storage.object_file import ChecksummedFile, Unlocked

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

T = TypeVar("T")
TRIES = 6
"""So often a request is sent, with pauses of random length between."""
_LONGEST_PAUSE = 8.0
_ATTEMPT = "attempt"


class ObjectStore:
    """Objects under one prefix of a bucket.

    Args:
        url: `s3://BUCKET/PREFIX`, `gs://...` or `az://...`.
        seconds: after which one request counts as lost.
        where: the setting that the URL comes from, for messages.

    Raises:
        ConfigError: the URL or the environment do not name a bucket.
    """

    def __init__(self, url: str, seconds: float = 30.0, where: str = "output.path") -> None:
        self.url = url.rstrip("/")
        if "@" in url.partition("://")[2].partition("/")[0] or "?" in url:
            raise ConfigError.one(
                where, "credentials and queries do not belong in a URL", "put them in the environment"
            )
        if url.partition("://")[0] not in _KNOWN:
            raise ConfigError.one(where, f"'{self.url}' is in no store that is known", _SCHEMES)
        try:
            self._client = _client(seconds)
            self._objects: Any = from_url(self.url, client_options=self._client, retry_config=_no_retries())
        except (BaseError, ValueError) as error:
            raise ConfigError.one(where, f"'{self.url}': {_reason(error)}", _SCHEMES) from None

    def publish(self, name: str, data: bytes) -> bool:
        """Put an object if absent.

        Each call marks its object, so that it knows its own again when the answer to an earlier try was lost.
        """
        attempt = uuid.uuid4().hex
        try:
            self._retried("publish", name, lambda: self._put(name, data, attempt))
        except FileExistsError:
            try:
                if self._retried("read", name, lambda: self._attempt_of(name)) != attempt:
                    return False
            except FileNotFoundError:
                raise StoreError(f"{self.url}/{name} vanished while it was published. {_ADVICE}") from None
        size = self._retried("check", name, lambda: self._stat(name).size)
        if size != len(data):
            raise StoreError(f"{self.url}/{name} has {size} bytes after {len(data)} were put; the store is not sound")
        return True

    def read(self, name: str) -> bytes:
        """Read one object."""
        return self._retried("read", name, lambda: self._whole(name)[0])

    def stat(self, name: str) -> Stat:
        """Ask for size and ETag of one object; raises FileNotFoundError when it is absent."""
        return self._retried("look at", name, lambda: self._stat(name))

    def piece(self, name: str, start: int, stop: int, etag: str | None) -> bytes:
        """Read the bytes from `start` to before `stop`, all of them there.

        Raises:
            FileNotFoundError: the object is absent.
            StoreError: it cannot be read, or is not the one with this ETag any more.
        """
        return self._retried("read", name, lambda: self._piece(name, start, stop, etag))

    def find(self, folder: str, *, deep: bool) -> list[str]:
        """List the objects directly under a prefix, or at any depth below it: their whole names, sorted."""
        found = self._retried("list", folder, lambda: _believed(lambda: self._find(folder or None, deep=deep)))
        return sorted(found)

    def names(self, folder: str = "") -> list[str]:
        """List what lies directly under a prefix; an absent one is empty."""
        paths = self._retried("list", folder, lambda: _believed(lambda: self._listing(folder)))
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def listed(self) -> list[Listed]:
        """List the objects directly under the prefix, in as many requests as the store needs pages."""
        found = self._retried("list", "", lambda: _believed(lambda: self._objects_in(None)))
        files = (
            Listed(meta["path"].rpartition("/")[2], meta["size"], meta["last_modified"].timestamp()) for meta in found
        )
        return sorted(files, key=lambda file: file.name)

    def delete(self, name: str) -> None:
        """Remove one object."""
        with contextlib.suppress(FileNotFoundError):
            self._retried("delete", name, lambda: obstore.delete(self._objects, name))

    def dataset(self, names: Sequence[str]) -> pyarrow.dataset.Dataset:
        """Open Parquet objects as one dataset; only what a question needs is fetched."""
        system = pyarrow.fs.PyFileSystem(_Requests(self))
        opened = pyarrow.dataset.dataset(list(names), format=CHECKED, filesystem=system)
        return Unlocked(list(opened.get_fragments()), opened.schema, opened.format, opened.filesystem)

    def check_writable(self) -> None:
        """Refuse a bucket that cannot be listed, or a store that puts over what is there; leaves nothing behind."""
        self.names()
        name = f".camatlas-{uuid.uuid4().hex}.tmp"
        try:
            if not self.publish(name, b"first") or self.publish(name, b"second"):
                raise StoreError(
                    f"{self.url} puts objects over those that are there (it ignores If-None-Match): two workers could "
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

    def _whole(self, name: str) -> tuple[bytes, "Attributes"]:
        """Read an object and what is attached to it.

        It is asked for as a range: the store then tells beside the bytes how many there are in all, and an error that
        comes with the status of success is no answer to that.
        """
        try:
            found = obstore.get(self._objects, name, options={"range": {"offset": 0}})
        except BaseError as error:
            if _status(error) != _NO_RANGE:
                raise
            found = obstore.get(self._objects, name)  # an empty object has no ranges
        data = bytes(found.bytes())
        if len(data) != found.meta["size"]:
            raise GenericError(f"{len(data)} bytes came where there are {found.meta['size']}")
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
            raise StoreError(f"{self.url}/{name} is another object than before: it was replaced. {_REPLACED}")
        data = bytes(found.bytes())
        if len(data) != stop - start:
            raise GenericError(f"{len(data)} bytes came where {stop - start} were asked for")
        return data

    def _find(self, folder: str | None, *, deep: bool) -> list[str]:
        if not deep:
            return [meta["path"] for meta in self._objects_in(folder)]
        return [meta["path"] for page in obstore.list(self._objects, prefix=folder) for meta in page]

    def _attempt_of(self, name: str) -> str | None:
        found: str | None = self._whole(name)[1].get(_ATTEMPT)
        return found

    def _retried(self, verb: str, name: str, ask: Callable[[], T]) -> T:
        """Ask again what failed on the way; what the store itself refuses is told at once."""
        for pause in [*_pauses(), None]:
            try:
                return ask()
            except (BaseError, FileNotFoundError) as error:
                if any(f"<Code>{code}</Code>" in str(error) for code in _NO_BUCKET):
                    raise StoreError(f"the bucket of {self.url} does not exist. {_MAKE_IT}") from None
                if isinstance(error, (NotFoundError, FileNotFoundError)):
                    raise FileNotFoundError(f"{self.url}/{name}") from None
                if pause is None or _is_refusal(error):
                    raise StoreError(f"cannot {verb} {self.url}/{name}: {_reason(error)}. {_ADVICE}") from error
                time.sleep(pause)
        raise AssertionError("the last pause is None")


class _Requests(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """Lets pyarrow read by our own requests: tried again, and a store that is down is no absent object."""

    def get_type_name(self) -> str:
        """Name the kind of file system."""
        return "objects"

    def open_input_file(self, path: str) -> pa.PythonFile:
        """Open an object for reading from anywhere; reads come whole, and nothing is read ahead but the piece."""
        store: ObjectStore = self.fs
        file = io.BufferedReader(ChecksummedFile(store, path, store.stat(path), _PIECE_BYTES), buffer_size=1)
        return pa.PythonFile(file, mode="r")


_PIECE_BYTES = 4 << 20
"""Most bytes of one request of a reader of parts."""
_TRY_AGAIN = ("408", "409", "429")
"""Too slow, in conflict with another put under way, too many."""
_NO_RANGE = "416"
_NO_OBJECT = "the answer has no ETag, it describes no object"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_MAKE_IT = "Correct the URL, or create the bucket."
_METADATA_SERVICE = "169.254.169.254"
_KNOWN = ("s3", "gs", "az")
_SCHEMES = "a local path, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
_ADVICE = "Finished chunks are kept; see that the store can be reached, then run the same command again."
_REPLACED = (
    "Rows of both do not belong in one run. Finished chunks are kept; put the old object back and run the same command "
    "again, or begin a run in another folder."
)


def _pauses() -> Iterator[float]:
    """Pauses between tries, each of random length up to twice the one before ("full jitter")."""
    return (random.uniform(0, min(_LONGEST_PAUSE, 0.2 * 2**n)) for n in range(TRIES - 1))  # noqa: S311 - no secret


def _client(seconds: float) -> "ClientConfig":
    """Time limits; plain HTTP only where the environment names such an endpoint."""
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    return {"timeout": timedelta(seconds=seconds), "connect_timeout": timedelta(seconds=10), "allow_http": plain}


def _no_retries() -> "RetryConfig":
    """The library would put again without knowing its own object; `_retried` does."""
    return {"max_retries": 0, "retry_timeout": timedelta(seconds=600)}


def _believed(ask: Callable[[], Sequence[T]]) -> Sequence[T]:
    """Ask for a listing, again when it is empty: so the library reads an error with the status of success, too."""
    return ask() or ask()


def _status(error: BaseException) -> str:
    """The status by which a store refused a request; nothing where it did not answer."""
    found = re.search(r"status code: (\d{3})", str(error))
    return found[1] if found else ""


def _is_refusal(error: BaseException) -> bool:
    """Whether the store refused a request, so that the same one again would be refused as well."""
    status = _status(error)
    refused = status.startswith("4") and status not in _TRY_AGAIN
    return refused or type(error) is not GenericError


def _reason(error: BaseException) -> str:
    """What the store says, or else the first line of the library's report."""
    if _METADATA_SERVICE in str(error):  # where the library asks for a role when it has no keys
        return "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return f"the store says {code[1]}" if code else first_line(error).partition("Debug source")[0].strip()
