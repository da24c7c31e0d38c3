"""Writes verdicts: as a table, as Markdown for the summary of a CI job, and as JUnit XML for its list of tests.

Names come from the file of checks and from the data; nothing of them becomes markup.
"""

import re
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from pipeline.audit.checks.judging import Verdict, failed, summary

_XML_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"[\\`*_\[\]|~$]")
_MARKS = {"passed": "✅ passed", "failed": "❌ failed", "skipped": "⏭ skipped"}


def table_rows(verdicts: Sequence[Verdict]) -> list[dict[str, str]]:
    """Return one row per verdict, for a terminal."""
    return [
        {
            "outcome": one.outcome, "check": one.title, "value": _number(one.measured.value), "must be": one.bound,
            "95 % interval": _interval(one), "images": _images(one),
        }
        for one in verdicts
    ]  # fmt: skip


def explained(verdicts: Sequence[Verdict]) -> list[str]:
    """Return a line for each verdict that needs words, and the query that shows its images."""
    lines = []
    for one in verdicts:
        lines += [f"{one.outcome}: {one.title}: {one.sentence}"] * bool(one.sentence)
        lines += [f"  look closer: {one.closer}"] * bool(one.closer)
    return lines


def markdown(verdicts: Sequence[Verdict], head: str, notes: Sequence[str]) -> str:
    """Return a summary in Markdown."""
    word = "failed" if failed(verdicts) else "passed"
    lines = [f"## Checks {word}: {_escaped(summary(verdicts))}", "", _escaped(head), ""]
    for note in notes:
        lines += [f"Note: {_escaped(note)}", ""]
    lines += ["| | check | value | must be | 95 % interval | images | |", "|---|---|---:|---|---|---:|---|"]
    for one in verdicts:
        cells = [_escaped(text) for text in (one.title, _number(one.measured.value), one.bound)]
        cells += [_escaped(text) for text in (_interval(one), _images(one), one.sentence)]
        lines.append(f"| {_MARKS[one.outcome]} | {' | '.join(cells)} |")
    shown = [one for one in verdicts if one.closer]
    lines += ["", "To look closer, with `camatlas query`:", ""] * bool(shown)
    lines += [f"* {_escaped(one.title)}: {_code(one.closer)}" for one in shown]
    return "\n".join(lines) + "\n"


def junit(verdicts: Sequence[Verdict], suite: str) -> bytes:
    """Return JUnit XML with one test case per verdict."""
    counts = {outcome: sum(one.outcome == outcome for one in verdicts) for outcome in ("failed", "skipped")}
    numbers = {"tests": str(len(verdicts)), "failures": str(counts["failed"]), "errors": "0"}
    root = ElementTree.Element("testsuites", numbers)
    of_run = ElementTree.SubElement(
        root, "testsuite", _attributes(name=suite, **numbers, skipped=str(counts["skipped"]))
    )
    for one in verdicts:
        case = ElementTree.SubElement(of_run, "testcase", _attributes(classname=one.check, name=one.title, time="0"))
        _add_properties(case, one)
        if one.outcome == "failed":
            message = ElementTree.SubElement(case, "failure", _attributes(message=one.sentence, type=one.bound))
            message.text = _xml(_details(one))
        elif one.outcome == "skipped":
            ElementTree.SubElement(case, "skipped", _attributes(message=one.sentence))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _add_properties(case: ElementTree.Element, one: Verdict) -> None:
    found = one.measured
    known = {"value": found.value, "low": found.low, "high": found.high, "images": found.images}
    properties = ElementTree.SubElement(case, "properties")
    for name, value in {**known, "bound": one.bound, "note": one.sentence}.items():
        if value is not None and value != "":
            ElementTree.SubElement(properties, "property", _attributes(name=name, value=str(value)))


def _details(one: Verdict) -> str:
    lines = [
        f"value: {_number(one.measured.value)}", f"must be: {one.bound}",
        f"95 % interval: {_interval(one)}", f"images: {_images(one)}",
    ]  # fmt: skip
    return "\n".join([*lines, *([f"look closer: {one.closer}"] if one.closer else [])])


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}" if value % 1 else f"{value:.0f}"


def _interval(one: Verdict) -> str:
    found = one.measured
    return "-" if found.low is None or found.high is None else f"{found.low:.4f} to {found.high:.4f}"


def _images(one: Verdict) -> str:
    return "-" if one.measured.images is None else str(one.measured.images)


def _attributes(**texts: str) -> dict[str, str]:
    return {name: _xml(text) for name, text in texts.items()}


def _xml(text: str) -> str:
    """Escape characters that XML cannot hold, such as control characters and lone surrogates."""
    return _XML_TEXT.sub(lambda found: ascii(found[0])[1:-1], text)


def _escaped(text: str) -> str:
    """Escape a text, so that Markdown shows it as it is, on one line."""
    plain = " ".join(_xml(text).split())
    plain = plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("://", "&#58;//")
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", plain)


def _code(text: str) -> str:
    """Write a text as code: between more backticks than it has in a row."""
    plain = " ".join(_xml(text).split())
    longest = max((len(run) for run in re.findall("`+", plain)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {plain} {fence}"


def to_json(verdicts: Sequence[Verdict], run: str, notes: Sequence[str]) -> dict[str, Any]:
    """Return all verdicts as plain JSON."""
    return {
        "run": run, "passed": not failed(verdicts), "notes": list(notes), "checks": [one.to_json() for one in verdicts],
    }  # fmt: skip
