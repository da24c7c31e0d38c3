"""The section `about`: texts within bounds, keys of one's own, and nothing that could change a run."""

import datetime
from pathlib import Path
from typing import Any

import pytest
from handmade import RunMaker
from runfiles import SMALLEST

from pipeline.audit.facts import audit
from pipeline.audit.page import render
from pipeline.audit.privacy import redacted
from pipeline.results.query import open_run
from pipeline.settings.run_file import RunConfig, parse_config
from schemas.manifest import RunManifest

HOSTILE = {
    "owner": "<script>alert(1)</script>", "contact": "=1+1", "limitations": "'\"\n\u2028../../etc/passwd\x00",
    "nearest": "a key that the report uses", "detail": "another", "image_key": "x",
    "<b>own</b>": "\ud800 a lone surrogate",
}  # fmt: skip


def parsed(about: object) -> tuple[RunConfig, dict[str, str]]:
    config, mistakes = parse_config({**SMALLEST, "about": about})
    return config, {mistake.where: mistake.what for mistake in mistakes}


def test_texts_numbers_and_dates_are_texts() -> None:
    given = {"owner": "A group", "version": 1.2, "reviewed on": datetime.date(2024, 1, 2), 3: "a number as a key"}
    config, mistakes = parsed(given)
    assert mistakes == {}
    assert config.about is not None
    assert config.model_dump(mode="json", exclude_none=True)["about"] == {
        "owner": "A group", "version": "1.2", "reviewed on": "2024-01-02", "3": "a number as a key",
    }  # fmt: skip
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
    assert parsed(None)[0].about is None


@pytest.mark.parametrize(
    ("about", "where", "what"),
    [
        ({"owner": " "}, "about.owner", "text of 1 to 4000 characters"),
        ({"owner": "x" * 4001}, "about.owner", "text of 1 to 4000 characters"),
        ({"licence": True}, "about.licence", "text of 1 to 4000 characters"),
        ({"mine": ["a", "b"]}, "about.mine", "text of 1 to 4000 characters"),
        ({str(i): "x" for i in range(51)}, "about", "at most 50 keys"),
        ({"x" * 81: "a"}, "about", "keys of at most 80 characters"),
        ("a text", "about", "takes keys"),
    ],
)
def test_what_is_not_a_short_text_is_refused(about: object, where: str, what: str) -> None:
    mistakes = parsed(about)[1]
    assert set(mistakes) == {where}
    assert what in mistakes[where]
    assert len(mistakes[where]) < 500, "a long value is not repeated as a whole"


def test_all_mistakes_are_found_at_once() -> None:
    assert set(parsed({"owner": "", "mine": {}, "version": "1"})[1]) == {"about.owner", "about.mine"}


class Described(RunMaker):
    """A run whose run file has hostile texts in `about`."""

    @property
    def manifest(self) -> RunManifest:
        """Return the manifest with the section."""
        return super().manifest.model_copy(update={"config": {"about": {"version": None, **HOSTILE}}})


def test_hostile_texts_stay_text_in_the_head_of_the_report(tmp_path: Path) -> None:
    with open_run(Described(tmp_path / "run").complete().folder) as run:
        found = audit(run, ask_model=False)
    order = ["owner", "limitations", "contact", *sorted(set(HOSTILE) - {"owner", "limitations", "contact"})]
    assert [entry["text"] for entry in found.facts["about"]] == [HOSTILE[name] for name in order]
    hidden: Any = redacted(found, b"sixteen bytes of secret")
    assert hidden.facts["about"] == found.facts["about"], "what the owner wrote is no key of an image"
    page = render(hidden.facts, hidden.pictures)
    head = page[page.index('<dl class="about">') : page.index("</dl>")]
    assert "<script" not in head
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in head
    assert "&lt;b&gt;own&lt;/b&gt;" in head
    assert head.count("<dt>") == len(HOSTILE)


def test_without_the_section_the_report_says_what_is_missing(tmp_path: Path) -> None:
    with open_run(RunMaker(tmp_path / "run").complete().folder) as run:
        found = audit(run, ask_model=False)
    assert found.facts["about"] == []
    assert "has no section <code>about</code>" in render(found.facts, found.pictures)
