"""One request: the run it asks for, its filters, and the links that lead on from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request

from pipeline.errors import CamatlasError, ConfigError
from pipeline.viewer.filters import Filters, parse, to_query
from pipeline.viewer.index import Ids, RunIndex
from pipeline.viewer.library import Library, OpenedRun


class NotFoundError(ConfigError):
    """There is no such image, picture or page."""


@dataclass(frozen=True)
class Visit:
    """A request with the run that it names.

    Attributes:
        library: all runs.
        opened: the run.
        query: the fields of the address, in order.
    """

    library: Library
    opened: OpenedRun
    query: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: Request, library: Library) -> "Visit":
        """Find the run of a request."""
        query = tuple(request.query_params.multi_items())
        return cls(library, library.get(dict(query).get("run", "")), query)

    @property
    def index(self) -> RunIndex:
        """Return the index of the run."""
        return self.opened.index

    @cached_property
    def filters(self) -> Filters:
        """Parse the filters of the address."""
        return parse(self.query, self.index)

    @cached_property
    def ids(self) -> Ids:
        """Return the ids of the rows that are left, in their order."""
        return self.opened.ids(self.filters)

    @cached_property
    def everything(self) -> Ids:
        """Return the ids of the rows without filters."""
        return self.opened.ids(self.filters.without_filters())

    def field(self, name: str, default: str = "") -> str:
        """Return a field of the address; the last one counts."""
        return dict(self.query).get(name, default)

    def number(self, name: str, default: int, most: int) -> int:
        """Return a field that is a whole number from 0 to `most`."""
        text = self.field(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 12):
            raise ConfigError.one(name, f"'{text[:80]}' is no number", "write one such as 60")
        return min(int(text), most)

    def link(self, path: str, filters: Filters | None = None, **more: object) -> str:
        """Return an address with the filters, and further fields."""
        return with_query(path, to_query(filters or self.filters, self.index, **more))

    def image_link(self, row: Mapping[str, Any], filters: Filters | None = None) -> str:
        """Return the address of an image's page."""
        return self.link("/image", filters, **{"in": row["shard"], "image": row["image_key"]})

    def picture_link(self, path: str, row: Mapping[str, Any]) -> str:
        """Return the address of a picture of one row; the same row has the same address."""
        fields = {
            "run": self.filters.run, "in": row["shard"], "image": row["image_key"], "target": row["target"],
            "method": row["method"],
        }  # fmt: skip
        kept = {name: value for name, value in fields.items() if value not in ("", None)}
        return with_query(path, urlencode(kept, errors="replace"))

    def rows_of_image(self) -> list[dict[str, Any]]:
        """Return the rows of the image that the address names.

        Raises:
            NotFoundError: there is none.
        """
        shard, key = self.field("in"), self.field("image")
        rows = self.index.image_rows(shard, key)
        if not rows:
            nearest_key = self.index.nearest_key(key)
            hint = f"did you mean '{nearest_key}'?" if nearest_key else ""
            raise NotFoundError.one("image", f"shard '{shard[:80]}' of this run has no image '{key[:200]}'", hint)
        return rows

    def row(self) -> dict[str, Any]:
        """Return the row of the image, target and method that the address names; the first that fits."""
        target, method = self.field("target"), self.field("method")
        for row in self.rows_of_image():
            if target in ("", str(row["target"])) and method in ("", row["method"] or ""):
                return row
        raise NotFoundError.one("picture", "this image has no map of that class and method")


def with_query(path: str, query: str) -> str:
    """Join a path and a query."""
    return f"{path}?{query}" if query else path


def status_of(error: CamatlasError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, NotFoundError):
        return 404
    return {2: 400, 4: 500, 5: 503}.get(error.exit_code, 500)


Handler = Callable[[Visit], Any]
