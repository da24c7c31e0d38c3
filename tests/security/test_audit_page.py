"""Hostile texts in every place the report prints: they are text, never markup, and the page asks for nothing."""

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from PIL import Image

from pipeline.audit.page import render
from pipeline.originals import Original

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "</title><svg onload=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% for x in y %}",
    "&lt;script&gt;",
    "+ADw-script+AD4-",
    "\u202egnp.exe",
    "http://evil.example/x.png",
    "a" * 5000,
]

FACTS: dict[str, Any] = {
    "facts_version": 1,
    "run": {"id": "0123", "path": "/runs/x", "started_at": "2026-11-20T00:00:00+00:00"},
    "provenance": {"model": "m", "weights sha256": "0", "seed": 0, "run file": {"data": {"shards": "s"}}},
    "coverage": {"verified": False, "problems": ["p"], "images": 1, "explained": 1, "failed": 0, "rows": 1, "parts": 1,
                 "bytes": 1},
    "counts": {"images": 1, "explained": 1, "labelled": 1, "correct": 0, "mean_confidence": 0.5},
    "wins": {"rows": [{"method": "gradcam", "other": "cam", "images": 1, "wins": 0.5}], "sql": "S"},
    "leaderboard": {"rows": [{"method": "gradcam", "interpretation": False, "approximate": True, "target_rule": "label",
                              "images": 1, "degenerate": 0.0, "energy_in_box": 0.5}],
                    "best": {"energy_in_box": 0.5}, "sql": "SELECT 1"},
    "metrics": {"energy_in_box": {"unit": "u", "better": "higher", "reads": "map"}},
    "classes": {"rows": [{"class": 0, "name": "n", "images": 1, "accuracy": 0.0, "mean_confidence": 0.5,
                          "mean_maps": {"gradcam": [[0.0, 1.0]]}, "metrics": {"gradcam": {"energy_in_box": None}}}],
                "sql": "SELECT 2"},
    "gallery": [{"title": "t", "sql": "SELECT 3", "images": [
        {"shard": "s", "image_key": "k", "label": 0, "label_name": "l", "predicted": 1, "predicted_name": "p",
         "target_name": "g", "confidence": 0.9, "methods": [
             {"method": "gradcam", "map": [[0.0, 1.0]], "degenerate": False, "metrics": {"energy_in_box": 0.5}}]}]}],
    "failures": {"rows": [{"error_stage": "decode", "error_code": "corrupt", "rows": 1, "example": "k", "detail": "d"}],
                 "sql": "SELECT 4"},
    "method_pages": {"gradcam": "page"},
}  # fmt: skip


class Parsed(HTMLParser):
    """Collects what could act on a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.addresses: list[str] = []
        self.inline_styles = 0
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.handlers += [name] if name.startswith("on") else []
            self.inline_styles += name == "style"
            if name in ("src", "href", "action", "data", "xlink:href"):
                self.addresses.append(value or "")
        self.text += [value or "" for name, value in attrs if name == "aria-label"]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def places(facts: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - any JSON
    if isinstance(facts, dict):
        return [found for name, value in facts.items() for found in places(value, (*path, name))]
    if isinstance(facts, list):
        return [found for i, value in enumerate(facts) for found in places(value, (*path, i))]
    return [path] if isinstance(facts, str) else []


def planted(place: tuple[Any, ...], payload: str) -> dict[str, Any]:
    facts = copy.deepcopy(FACTS)
    section: Any = facts
    for name in place[:-1]:
        section = section[name]
    section[place[-1]] = payload
    return facts


def pictures(facts: dict[str, Any]) -> dict[tuple[str, str], Original]:
    image = facts["gallery"][0]["images"][0]
    return {(image["shard"], image["image_key"]): Original(Image.new("RGB", (96, 96)), ((1.0, 2.0, 30.0, 40.0),))}


CLEAN = Parsed(render(FACTS, pictures(FACTS)))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_anywhere_stays_text(payload: str) -> None:
    for place in places(FACTS):
        facts = planted(place, payload)
        found = Parsed(render(facts, pictures(facts)))
        assert found.tags == CLEAN.tags, place
        assert found.handlers == []
        assert found.inline_styles == 0
        assert all(address.startswith(("#", "data:image/")) for address in found.addresses), place
        if place[-1] not in ("path", "better", "shard") and place != ("gallery", 0, "images", 0, "label_name"):
            assert payload in "".join(found.text), place


def test_payloads_in_names_of_things_stay_text() -> None:
    for payload in PAYLOADS:
        facts = copy.deepcopy(FACTS)
        facts["method_pages"] = {payload: payload}
        facts["provenance"] |= {payload: payload}
        facts["metrics"] = {payload: facts["metrics"]["energy_in_box"]}
        facts["leaderboard"]["rows"][0][payload] = facts["leaderboard"]["best"][payload] = 0.5
        found = Parsed(render(facts, pictures(facts)))
        assert found.tags == CLEAN.tags
        assert found.handlers == []


def test_the_policy_allows_our_style_and_nothing_else() -> None:
    page = render(FACTS, pictures(FACTS))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1] == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert "script" not in CLEAN.tags


def test_the_page_is_the_same_bytes_each_time() -> None:
    assert render(FACTS, pictures(FACTS)) == render(copy.deepcopy(FACTS), pictures(FACTS))
