"""Every file and folder of the project that its documents name exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md"))
)
NAMED = re.compile(r"(?<![\w/.:-])(?:tests|pipeline|jobs|schemas|deploy|docs)/[\w./*-]*\w")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_paths_that_a_document_names_exist(document: str) -> None:
    named = sorted(set(NAMED.findall((ROOT / document).read_text(encoding="utf-8"))))
    assert [path for path in named if not any(ROOT.glob(path))] == []


def test_paths_are_named() -> None:
    assert len(NAMED.findall((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))) > 20
