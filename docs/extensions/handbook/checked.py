"""Checks the names on the pages before Sphinx reads them; each name that nothing has is a warning."""

import json
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util import logging

from handbook.names import Problem, problems
from handbook.vocabulary import Vocabulary, vocabulary

_LOG = logging.getLogger(__name__)


def pages(root: Path) -> Iterator[Path]:
    """Yield the files that people read: the README, and the pages and notebooks of the documentation."""
    yield root / "README.md"
    for path in sorted((root / "docs").rglob("*")):
        if path.suffix in (".md", ".ipynb") and not {"_generated", "_deploy", ".ipynb_checkpoints"} & set(path.parts):
            yield path


def text_of(page: Path) -> str:
    """Read the Markdown of a page; of a notebook, that of its sentences."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def problems_of(root: Path, known: Vocabulary) -> Iterator[tuple[Path, Problem]]:
    """Yield each page with each problem on it."""
    for page in pages(root):
        for problem in problems(text_of(page), known):
            yield page, problem


def _check(app: Sphinx) -> None:
    root = Path(app.srcdir).parent
    for page, problem in problems_of(root, vocabulary(root)):
        _LOG.warning(problem.text, location=f"{page}:{problem.line}", type="names")


def setup(app: Sphinx) -> dict[str, bool]:
    """Check the pages when the builder starts."""
    app.connect("builder-inited", _check, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
