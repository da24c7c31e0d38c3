"""Every file and folder of the project that its documents name exists."""

import re
from pathlib import Path

import pytest
import yaml

from pipeline.cams import METHODS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md"))
    if "_generated" not in path.parts
)
NAMED = re.compile(r"(?<![\w/.:-])(?:tests|pipeline|jobs|schemas|deploy|docs)/[\w./*-]*\w")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_paths_that_a_document_names_exist(document: str) -> None:
    named = sorted(set(NAMED.findall((ROOT / document).read_text(encoding="utf-8"))))
    assert [path for path in named if not any(ROOT.glob(path))] == []


def test_paths_are_named() -> None:
    assert len(NAMED.findall((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))) > 20


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_citation_names_the_four_papers_as_their_methods_do() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    methods = ("integrated_gradcam", "iscam", "increment_cam", "integrative_cam")
    papers = [METHODS[name].paper for name in methods]
    assert [each["title"] for each in cited] == [paper.title for paper in papers]
    assert [each["year"] for each in cited] == [paper.year for paper in papers]
    authors = [", ".join(author["family-names"] for author in each["authors"]) for each in cited]
    assert authors == [paper.authors for paper in papers]
