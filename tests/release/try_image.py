"""make image: run the steps of deploy/Dockerfile as far as they can run without a container engine.

The steps run as they are written, in a folder that stands for the root of the file system. Those that need a root of
their own (packages of the system, users) are named and left out. Then the image's command runs the demo in the image's
environment alone, with an empty home.
"""

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dockerfile_parse import DockerfileParser
from fresh import ROOT, said

_NEEDS_ROOT = ("apt-get", "groupadd", "useradd")
_VARIABLE = re.compile(r"([A-Z_]+)=(\S+)")
_BASE_PYTHON = Path(sys.base_prefix) / "bin" / "python3"
"""Stands for the Python of the base image."""


def steps() -> Iterator[tuple[str, str]]:
    """Yield instruction and value of each step."""
    text = (ROOT / "deploy" / "Dockerfile").read_bytes()
    for step in DockerfileParser(fileobj=io.BytesIO(text)).structure:
        yield step["instruction"], step["value"]


def main() -> None:
    """Run the steps in their order."""
    with tempfile.TemporaryDirectory(prefix="camatlas-image-") as name:
        root = Path(name)
        source, home = root / "src", root / "home"
        source.mkdir()
        home.mkdir()
        variables = {"HOME": str(home), "PATH": f"{root}/opt/camatlas/bin:/usr/bin:/bin"}
        for instruction, value in steps():
            if instruction == "COPY" and not value.startswith("--from"):
                *files, target = value.split()
                copy(files, source, target)
            elif instruction in ("ENV", "ARG"):
                given = {key: placed(each, root) for key, each in _VARIABLE.findall(value)}
                variables |= {key: each for key, each in given.items() if key != "PATH"}
            elif instruction == "RUN" and any(word in value for word in _NEEDS_ROOT):
                print("left out, it needs a root file system of its own:", value.split("&&")[0].strip(), "...")
            elif instruction == "RUN":
                said(["/bin/sh", "-c", placed(value, root)], source, **variables)
        said([root / "opt" / "camatlas" / "bin" / "camatlas", "demo", "demo"], home, **variables)
    print("The steps of the image ran, and its command runs the demo.")


def placed(text: str, root: Path) -> str:
    """Let a step work below the folder instead of the root, and with a Python that stands for that of the base."""
    moved = re.sub(r"/(opt/camatlas|tmp)\b", lambda found: f"{root}/{found[1]}", text)
    return re.sub(r"^python (?=-m (venv|pip))", f"{_BASE_PYTHON} ", moved)


def copy(files: list[str], source: Path, target: str) -> None:
    """Copy files or folders of the repository, as a COPY step does."""
    for file in files:
        place = source / (file if target == "./" else target)
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / file).is_dir():
            shutil.copytree(ROOT / file, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / file, place)


if __name__ == "__main__":
    main()
