"""make wheel: install the wheel into an environment of its own, far from the repository, and run the demo with it."""

import subprocess
import sys
import tempfile
from pathlib import Path

from fresh import ROOT, environment, install, said

_IMPORTED = """
import pathlib, pipeline, sys
sys.exit(pathlib.Path(sys.prefix) not in pathlib.Path(pipeline.__file__).parents)
"""


def main() -> None:
    """Check the newest wheel of dist/."""
    wheel = max(ROOT.glob("dist/camatlas-*.whl"), key=lambda path: path.stat().st_mtime)
    with tempfile.TemporaryDirectory(prefix="camatlas-wheel-") as name:
        folder = Path(name)
        python = environment(folder / "environment")
        install(python, "--require-hashes", "-r", ROOT / "deploy" / "requirements.lock")
        install(python, "--no-deps", wheel)
        said([python, "-c", _IMPORTED], folder)
        camatlas = python.with_name("camatlas")
        said([camatlas, "demo", "demo"], folder)
        said([camatlas, "verify", "demo/run"], folder)
        said([camatlas, "query", "demo/run"], folder)
        said([camatlas, "audit", "demo/run", "--no-model", "--out", "report"], folder)
        assert (folder / "report" / "report.html").stat().st_size > 100_000
    print(f"{wheel.name} runs the demo.")


if __name__ == "__main__":
    try:
        main()
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
