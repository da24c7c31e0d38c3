"""Writes the generated pages of the reference before Sphinx reads its sources."""

from collections.abc import Callable
from pathlib import Path

from sphinx.application import Sphinx

from handbook import columns, methods_and_metrics, programs, public_names, run_file, verbs
from handbook.files import write_if_changed

PAGES: dict[str, Callable[[], str]] = {
    "run-file": run_file.page,
    "verbs": verbs.page,
    "python": public_names.page,
    "columns": columns.page,
    "events": programs.events_page,
    "exit-codes": programs.exit_codes_page,
    "methods": methods_and_metrics.methods_page,
    "metrics": methods_and_metrics.metrics_page,
}
"""What writes each page; the page of the reference with its name includes it."""


def write_pages(folder: Path) -> None:
    """Write the pages into a folder."""
    for name, write in PAGES.items():
        write_if_changed(folder / f"{name}.md", write())


def _before_reading(app: Sphinx) -> None:
    write_pages(Path(app.srcdir) / "reference" / "_generated")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages when the builder starts."""
    app.connect("builder-inited", _before_reading)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
