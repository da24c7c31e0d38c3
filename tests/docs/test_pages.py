"""Every command and every block of Python of the documentation runs, or a list says why it does not."""

import tomllib
from collections import Counter
from pathlib import Path

import pytest
from docs.commands import ROOT
from docs.sessions import Session
from handbook.blocks import blocks
from handbook.checked import pages, text_of

PAGES = {str(path.relative_to(ROOT)): list(blocks(text_of(path))) for path in pages(ROOT)}
RUN = sorted(name for name, found in PAGES.items() if any(block.runs for block in found))
LONG = ("docs/tutorial/watermark.md",)
"""Pages that take half a minute."""
SESSIONS = [pytest.param(name, marks=pytest.mark.docs) if name in LONG else name for name in RUN]
NOT_RUN = tomllib.loads((Path(__file__).parent / "not_run.toml").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("empty_folder")
@pytest.mark.parametrize("page", SESSIONS)
def test_the_blocks_of_a_page_run_in_one_session(page: str) -> None:
    session = Session(page)
    for block in PAGES[page]:
        session.do(block)


def test_the_blocks_that_do_not_run_are_those_of_the_list() -> None:
    found = {
        page: Counter(block.comments["not run"] for block in found if "not run" in block.comments)
        for page, found in PAGES.items()
    }
    assert {page: dict(reasons) for page, reasons in found.items() if reasons} == NOT_RUN
