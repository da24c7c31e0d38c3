"""Brings the guides of `deploy/` into the documentation: copies whose links lead to the same places."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

from handbook.files import write_if_changed

FOLDER = "_deploy"
"""The folder of the copies, in that of the documentation."""
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_OUTSIDE_OF_TABLES_OF_CONTENTS = "---\norphan: true\n---\n\n"


def guides(root: Path) -> Iterator[Path]:
    """Yield the guides."""
    yield from sorted((root / "deploy").rglob("*.md"))


def with_links(text: str, page: Path, root: Path, place: Path) -> str:
    """Let the links of a page lead to the same files, with copies in the place of guides.

    Args:
        text: the page.
        page: where it stands.
        root: the folder of the project.
        place: where the text will stand.
    """

    def moved(link: re.Match[str]) -> str:
        target = (page.parent / link[1]).resolve()
        if target in known:
            target = copy_of(target, root)
        elif page == place:
            return link[1]
        return os.path.relpath(target, place.parent)

    known = frozenset(guides(root))
    return _LINK.sub(moved, text)


def copy_of(guide: Path, root: Path) -> Path:
    """Return where the copy of a guide stands."""
    return root / "docs" / FOLDER / guide.relative_to(root / "deploy")


def _write(app: Sphinx) -> None:
    root = Path(app.srcdir).parent
    for guide in guides(root):
        copy = copy_of(guide, root)
        text = with_links(guide.read_text(encoding="utf-8"), guide, root, copy)
        write_if_changed(copy, _OUTSIDE_OF_TABLES_OF_CONTENTS + text)


def _lead_to_copies(app: Sphinx, document: str, content: list[str]) -> None:
    page = Path(app.env.doc2path(document))
    if FOLDER not in page.parts and page.suffix == ".md":
        content[0] = with_links(content[0], page, Path(app.srcdir).parent, page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the copies, and let links to guides lead there."""
    app.connect("builder-inited", _write)
    app.connect("source-read", _lead_to_copies)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
