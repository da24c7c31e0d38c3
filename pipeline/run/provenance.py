"""The versions of the code and the libraries that a run is made with."""

import hashlib
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "ray", "torch", "torchvision", "pyarrow", "pandas", "pillow", "simplejpeg", "cykooz-resizer", "numpy", "duckdb",
)  # fmt: skip
_ROOT = Path(__file__).resolve().parents[2]
_OWN_PACKAGES = ("pipeline", "schemas")


def code_version() -> str:
    """Return the version of camatlas."""
    try:
        return version("camatlas")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0+unknown"


def package_versions(others: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of the libraries that rows can depend on, and of others that a run uses."""
    versions = {}
    for name in (*PACKAGES, *others):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def code_facts() -> dict[str, str]:
    """Return the version, the source digest and, in a checkout, the commit."""
    facts = {"version": code_version(), "source_sha256": _source_digest()}
    commit = _commit()
    return facts | ({"commit": commit} if commit else {})


def _source_digest() -> str:
    total = hashlib.sha256()
    for package in _OWN_PACKAGES:
        for path in sorted((_ROOT / package).rglob("*.py")):
            total.update(path.relative_to(_ROOT).as_posix().encode() + b"\n" + path.read_bytes())
    return total.hexdigest()


def _commit() -> str:
    if not (_ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(_ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
