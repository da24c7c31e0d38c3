"""Versions that a lock file pins."""

import re

from unit.deploy.manifests import ROOT


def locked_versions(path: str) -> dict[str, str]:
    """Return the version of each package; of several lines for several platforms the last one counts."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][\w.-]*)==([^\s;\\]+)", text, re.MULTILINE))
