"""Checks the names on the pages when Sphinx builds them."""

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Check the pages."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
