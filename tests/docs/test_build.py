"""The documentation is built once, as `make docs` does, apart from the notebooks, which have a test of their own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from docs.commands import ROOT
from handbook.offline import mistakes
from sphinx.search.en import SearchEnglish

QUESTIONS = {
    "energy_in_box": "reference/metrics",
    "resume on another machine": "howto/resume-and-repair",
    "sigmoid model": "howto/own-model",
}
"""What people type into the search, and the page that answers it."""

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages; a warning fails."""
    folder = tmp_path_factory.mktemp("docs")
    options = ["-q", "-W", "--keep-going", "-D", "nb_execution_mode=off", "-d", folder / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, ROOT / "docs", folder / "html"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")
    return folder / "html"


def test_every_page_of_the_project_is_built(built: Path) -> None:
    sources = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md") if "_" not in path.parent.name}
    missing = [source for source in sources if not (built / source).with_suffix(".html").exists()]
    assert missing == []


def test_formulas_are_mathml(built: Path) -> None:
    text = (built / "reference" / "methods.html").read_text(encoding="utf-8")
    assert text.count("<math") > 40
    assert "MathJax" not in text


@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_the_index_of_the_search_leads_to_the_answer(built: Path, question: str) -> None:
    index = json.loads((built / "searchindex.js").read_text(encoding="utf-8")[len("Search.setIndex(") : -1])
    language = SearchEnglish({})
    words = [word for word in re.findall(r"\w+", question.lower()) if word not in language.stopwords]
    pages = [{index["docnames"][number] for number in _files(index, language.stem(word))} for word in words]
    assert QUESTIONS[question] in set.intersection(*pages)


def _files(index: dict[str, Any], word: str) -> list[int]:
    found = [index[terms].get(word, []) for terms in ("terms", "titleterms")]
    return [number for numbers in found for number in (numbers if isinstance(numbers, list) else [numbers])]


@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_a_browser_finds_the_answer_among_the_first_results(built: Path, browser: Any, question: str) -> None:
    context = browser.new_context(offline=True)
    page, asked = context.new_page(), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto((built / "search.html").as_uri() + "?q=" + question.replace(" ", "+"))
    page.wait_for_selector("#search-results ul.search li a")
    page.wait_for_function("document.querySelector('.search-summary').innerText.length > 0")
    links = page.eval_on_selector_all("#search-results ul.search li > a", "all => all.map(one => one.href)")
    context.close()
    assert any(f"/{QUESTIONS[question]}.html" in link for link in links[:3]), links[:8]
    assert [url for url in asked if not url.startswith("file:")] == []


@pytest.mark.parametrize(
    ("name", "text", "mistake"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ("a.html", '<img srcset="//cdn.example/x.png">', "loads //cdn.example/x.png"),
        ("a.html", '<p style="background: url(http://cdn.example/x.png)">', "loads http://cdn.example/x.png"),
        ("a.css", "@import 'https://fonts.example/x.css';", "loads https://fonts.example/x.css"),
        ("a.html", '<a href="nowhere.html">', "the link 'nowhere.html' leads nowhere"),
        ("a.html", '<a href="#nothing">', "the link '#nothing' leads nowhere"),
        ("a.html", '<a href="b.html#nothing">', "the link 'b.html#nothing' leads nowhere"),
    ],
)
def test_what_leaves_the_pages_or_leads_nowhere_is_a_mistake(
    tmp_path: Path, name: str, text: str, mistake: str
) -> None:
    (tmp_path / "b.html").write_text('<p id="here"><a href="https://example.org">, <a href="#here">', encoding="utf-8")
    (tmp_path / name).write_text(text, encoding="utf-8")
    (found,) = mistakes(tmp_path)
    assert mistake in found
