"""Hostile texts in every place that the report prints: they stay text, and the page makes no request."""

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from audited import full_facts, pictures_of

import pipeline.audit.page as page_module
from pipeline.audit.page import render

PAYLOADS = [
    "<script>alert(1)</script>", "</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)", '" autofocus onfocus="alert(1)', "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>", "</template><script>alert(1)</script>", "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>", "<math><mi xlink:href=javascript:alert(1)>x",
    "<iframe srcdoc='<script>alert(1)</script>'>", "<object data=javascript:alert(1)>", "<embed src=//evil.example>",
    "<link rel=stylesheet href=//evil.example>", "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example>", "<form action=//evil.example><button>x", "<a href=javascript:alert(1)>x</a>",
    "<details open ontoggle=alert(1)>", "<style>*{background:url(//evil.example)}</style>", "<!--<script>-->",
    "<![CDATA[<script>alert(1)</script>]]>", "javascript:alert(1)", "data:text/html,<script>alert(1)</script>",
    "http://evil.example/x.png", "url(//evil.example)", "expression(alert(1))", "{{ 7 * 7 }}{% for x in y %}",
    "{{ self.__init__.__globals__ }}", "${7*7}", "&lt;script&gt;", "&#60;script&#62;", "&amp;lt;", "+ADw-script+AD4-",
    "\u202egnp.exe", "\u2028alert(1)\u2029", "\x00<script>", "`onload=alert(1)`", "a" * 5000,
]  # fmt: skip

FACTS = full_facts()
NAMES = {*(row["method"] for row in FACTS["leaderboard"]["rows"]), *FACTS["metrics"], *FACTS["method_pages"]}
"""User-supplied names that are also keys of the facts."""

STRUCTURE = {
    "higher", "lower", "neither", "yes", "no", "undecided", "found", "not found", "not checked",
    "region", "object", "colour", "labels", "maps", "failures",
}  # fmt: skip
"""Values that the templates compare, which are not texts."""


class Parsed(HTMLParser):
    """Collects tags, event handlers, addresses, inline styles and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.counts: dict[str, int] = {}
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.inline_styles = 0
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.inline_styles += name == "style"
            if name in ("src", "href", "action", "data", "xlink:href", "srcdoc", "formaction", "poster"):
                self.addresses.append(value or "")
        self.text += [value or "" for name, value in attrs if name in ("aria-label", "data-method", "value")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def everywhere(facts: Any, payload: str) -> Any:
    """Prefix every text, and every key that is a user-supplied name, with a payload."""
    if isinstance(facts, dict):
        return {payload + name if name in NAMES else name: everywhere(value, payload) for name, value in facts.items()}
    if isinstance(facts, list):
        return [everywhere(value, payload) for value in facts]
    return payload + facts if isinstance(facts, str) and facts and facts not in STRUCTURE else facts


def texts(facts: Any) -> set[str]:
    if isinstance(facts, dict):
        return {text for value in facts.values() for text in texts(value)}
    if isinstance(facts, list):
        return {text for value in facts for text in texts(value)}
    return {facts} if isinstance(facts, str) else set()


CHARTS = page_module._charts(FACTS)
CLEAN = Parsed(render(FACTS, pictures_of(FACTS)))
PRINTED = {text for text in texts(FACTS) - STRUCTURE if len(text) > 1 and text in CLEAN.text}


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_in_every_place_stays_text(payload: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = everywhere(FACTS, payload)
    monkeypatch.setattr(page_module, "_charts", lambda _facts: CHARTS)  # the next test draws them
    parsed = Parsed(render(facts, pictures_of(facts)))
    assert parsed.counts == CLEAN.counts
    assert parsed.handlers == []
    assert parsed.inline_styles == 0
    assert all(address.startswith(("#", "data:image/")) for address in parsed.addresses)
    shown = "\n".join(parsed.text).replace("\ufffd", "\x00")
    assert len(PRINTED) > 25
    for text in PRINTED:
        assert payload + text in shown


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.campaign)])
def test_payloads_in_charts_stay_text(first: int) -> None:
    facts = everywhere(FACTS, " ".join(PAYLOADS[first::2]))
    parsed = Parsed(render(facts, pictures_of(facts)))
    assert parsed.counts == CLEAN.counts
    assert (parsed.handlers, parsed.inline_styles) == ([], 0)
    assert all(address.startswith(("#", "data:image/")) for address in parsed.addresses)


def test_payloads_in_names_of_fields_stay_text() -> None:
    facts = copy.deepcopy(FACTS)
    facts["grades"] = {payload: payload for payload in PAYLOADS}
    facts["provenance"] |= facts["grades"] | {payload + "2": {payload: payload} for payload in PAYLOADS}
    parsed = Parsed(render(facts, pictures_of(facts)))
    assert parsed.tags == CLEAN.tags
    assert parsed.handlers == []
    shown = "\n".join(parsed.text).replace("\ufffd", "\x00")
    assert all(payload in shown for payload in PAYLOADS)


def test_the_policy_allows_only_the_style_and_script_of_the_page() -> None:
    page = render(FACTS, pictures_of(FACTS))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    templates = files("pipeline.audit") / "templates"
    hashes = []
    for tag, name in (("style", "report.css"), ("script", "report.js")):
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert inner == (templates / name).read_text()
        hashes.append(base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode())
    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_the_script_builds_no_markup_and_loads_nothing() -> None:
    script = (files("pipeline.audit") / "templates" / "report.js").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|XMLHttp|import", script
    )


def test_only_style_script_and_charts_are_not_escaped() -> None:
    marked = []
    for file in (files("pipeline.audit") / "templates").iterdir():
        marked += re.findall(r"\{\{[^}]*\|\s*safe[^}]*\}\}", file.read_text())
        assert "autoescape" not in file.read_text()
    assert sorted(marked) == ["{{ script|safe }}", "{{ style|safe }}", "{{ svg|safe }}"]


def test_the_page_is_the_same_bytes_each_time() -> None:
    assert render(FACTS, pictures_of(FACTS)) == render(copy.deepcopy(FACTS), pictures_of(FACTS))
