"""make lowest: resolve the lowest declared versions of our dependencies, install them, and run the fast tests.

The lowest versions are those of pyproject.toml's dependencies; what the tests themselves need is as it is locked, as
far as both fit together.
"""

import sys
import tempfile
from pathlib import Path

from fresh import ROOT, UV, environment, install, said

_FAST = ("tests/unit", "tests/oracle/test_methods.py", "tests/oracle/test_metrics.py")
_TOOLS = (
    "hypothesis", "httpx", "jsonschema", "junitparser", "moto[server]", "polars", "pytest>=8.3", "pytest-timeout", "pytest-xdist",
)  # fmt: skip


def main() -> None:
    """Resolve, install, test."""
    with tempfile.TemporaryDirectory(prefix="camatlas-lowest-") as name:
        folder = Path(name)
        lowest, python = folder / "lowest.txt", environment(folder / "environment")
        resolve = [UV, "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--python", sys.executable]
        said([*resolve, "--no-emit-index-url", "-o", lowest, "pyproject.toml"], ROOT)
        install(python, "-r", lowest, *_TOOLS)
        install(python, "--no-deps", "-e", ROOT)
        chosen = sys.argv[1:] or _FAST
        said([python, "-m", "pytest", "-q", "-n", "2", "-m", "not slow and not campaign", *chosen], ROOT)
    print("The lowest declared versions pass the fast tests.")


if __name__ == "__main__":
    main()
