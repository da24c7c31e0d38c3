"""Environments and folders that were never used before, for trying a release as a new user would."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")


def said(command: Sequence[str | Path], folder: Path, **variables: str) -> None:
    """Print a command and run it in a folder; ends this program if it fails.

    Of the environment, the command sees only what names programs, the home folder and temporary folders, so that no
    package and no setting of this project reaches it.
    """
    print("$", *command, flush=True)
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG", "SSL_CERT_FILE") if name in os.environ
    }
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))}
    code = subprocess.run([*map(str, command)], cwd=folder, env=kept | pip | variables, check=False).returncode
    if code:
        sys.exit(f"it ended with {code}")


def environment(folder: Path) -> Path:
    """Make a virtual environment without packages; returns its Python."""
    said([UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder], ROOT)
    return folder / "bin" / "python"


def install(python: Path, *what: str | Path) -> None:
    """Install packages into an environment."""
    said([UV, "pip", "install", "--quiet", "--python", python, *what], ROOT)
