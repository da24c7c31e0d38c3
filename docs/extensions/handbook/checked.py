"""Checks the names on the pages before Sphinx reads them; each name that nothing has is a warning."""

from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from handbook.names import problems
from handbook.vocabulary import vocabulary

_LOG = logging.getLogger(__name__)


def pages(root: Path) -> Iterator[Path]:
    """Yield the files that people read: the README and the pages of the documentation."""
    yield root / "README.md"
    yield from sorted(path for path in (root / "docs").rglob("*.md") if "_generated" not in path.parts)


def _check(app: Sphinx) -> None:
    root = Path(app.srcdir).parent
    known = vocabulary(root)
    for path in pages(root):
        for problem in problems(path.read_text(encoding="utf-8"), known):
            _LOG.warning(problem.text, location=(str(path), problem.line), type="names")


def setup(app: Sphinx) -> dict[str, bool]:
    """Check the pages when the builder starts."""
    app.connect("builder-inited", _check, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
