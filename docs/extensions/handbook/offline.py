"""Makes sure that built pages load nothing from other machines, and that their links lead somewhere.

Links to pages of other sites are left alone: a reader follows them, and no build asks for them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_LOADS = ("src", "srcset", "data", "poster", "href")
"""Attributes by which a page loads something; `href` only where the element is no link for readers."""
_LINKS = ("a", "area")
_IN_STYLES = re.compile(r"""(?:url\(\s*|@import\s+)["']?\s*((?:https?:)?//[^"')\s]+)""")
_OTHER_MACHINE = re.compile(r"^(?:https?:)?//")


@dataclass
class Found(HTMLParser):
    """What an HTML page loads, where it leads, and the anchors that it has."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the attributes of an element."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in _LINKS:
            self.links += [given["href"]] if "href" in given else []
        else:
            self.loads += [given[name] for name in _LOADS if name in given]
        self.loads += _IN_STYLES.findall(given.get("style", ""))


@cache
def _read(page: Path) -> Found:
    found = Found()
    found.feed(page.read_text(encoding="utf-8"))
    return found


def mistakes(folder: Path) -> Iterator[str]:
    """Yield each request to another machine and each link that leads nowhere, in built pages."""
    _read.cache_clear()
    for page in sorted(folder.rglob("*.html")):
        found, name = _read(page), page.relative_to(folder).as_posix()
        yield from (f"{name} loads {url} from another machine" for url in found.loads if _OTHER_MACHINE.match(url))
        yield from (f"{name}: the link '{link}' leads nowhere" for link in found.links if not _leads(link, page))
    for style in sorted(folder.rglob("*.css")):
        urls = _IN_STYLES.findall(style.read_text(encoding="utf-8"))
        yield from (f"{style.relative_to(folder)} loads {url} from another machine" for url in urls)


def _leads(link: str, page: Path) -> bool:
    """Tell whether a link leads to a file that exists, and to an anchor in it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return False
    return not parts.fragment or target.suffix != ".html" or unquote(parts.fragment) in _read(target).anchors


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for mistake in mistakes(Path(app.outdir)):
            _LOG.warning(mistake, type="offline")


def setup(app: Sphinx) -> dict[str, bool]:
    """Check the pages when they are built."""
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
