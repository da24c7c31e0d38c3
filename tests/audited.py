"""Facts of a report with content in every section: those of a small run, completed by hand."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from handmade import RunMaker
from PIL import Image

from pipeline.audit.facts import Audited, audit
from pipeline.results.query import open_run
from pipeline.results.source_images import Original

_EFFECT = {"what": "An effect", "value": 0.5, "low": 0.4, "high": 0.6, "images": 30}
_EVIDENCE = {
    "kind": "watermark", "subject": "1", "name": "dog", "section": "context", "grade": "replicated",
    "sentence": "A sentence.", "proof": "A proof.", "advice": "An advice.", "effect": _EFFECT,
    "control": {"what": "A control", "value": 0.1, "low": 0.0, "high": 0.2, "images": 30},
}  # fmt: skip
_SECOND = {**_EVIDENCE, "kind": "background", "sentence": "A second sentence.", "control": None}
_CHECK = {
    "detector": "patch", "name": "A constant patch", "verdict": "found", "section": "context", "images": 40,
    "effect": _EFFECT, "control": _EVIDENCE["control"], "limit": "a limit", "why": "A reason", "command": "a command",
}  # fmt: skip
_UNCHECKED = {**_CHECK, "verdict": "not checked", "effect": None, "control": None, "limit": ""}
_REGION = [[0.0, 1.0], [0.0, 0.0]]
_MAP = [[0.0, 1.0], [0.5, 0.25]]
_CLUSTER = {
    "images": 20,
    "judged": 20,
    "errors": 0.1,
    "low": 0.05,
    "high": 0.2,
    "mean_map": _MAP,
    "width": 0.5,
    "flagged": True,
}


def full_facts() -> dict[str, Any]:
    """Build facts in which every section has rows."""
    with tempfile.TemporaryDirectory() as folder, open_run(RunMaker(Path(folder) / "run").complete().folder) as run:
        facts = copy.deepcopy(audit(run, run).facts)
    facts["run"]["path"] = "/runs/x"
    facts["more_findings"] = ["One more."]
    facts["checked"] = [_CHECK, {**_CHECK, "verdict": "undecided"}, {**_CHECK, "verdict": "not found"}, _UNCHECKED]
    facts["about"] = [{"name": "owner", "text": "An owner"}, {"name": "a key", "text": "Several\nlines"}]
    facts["coverage"] |= {"verified": False, "problems": ["a problem"]}
    facts["sanity"]["rows"] = [{"method": "gradcam", "images": 9, "maps": 9, "spearman": 0.1, "half_width": 0.1,
                                "ssim": 0.1, "low": 0.0, "high": 0.2, "follows": "yes"}]  # fmt: skip
    facts["findings"] = [
        {**_EVIDENCE, "evidence": [_EVIDENCE, _SECOND], "picture": picture}
        for picture in _exhibits(facts["gallery"][0]["images"][0])
    ]
    place = [facts["gallery"][0]["images"][0][name] for name in ("shard", "image_key")]
    nearest = [{**_CLUSTER, "nearest": [place]}, {**_CLUSTER, "nearest": []}]
    facts["strategies"] = [
        {"class": 1, "name": "two clusters", "images": 40, "separation": 0.9, "stability": 0.4, "clusters": nearest},
        {
            "class": 2,
            "name": "one cluster",
            "images": 40,
            "separation": None,
            "stability": 1.0,
            "clusters": nearest[:1],
        },
    ]
    facts["background"] |= {
        "asked": True,
        "points": [{"removed": 0.5, "alone": 0.25}],
        "outside": [{"method": "gradcam", "images": 4, "outside": 0.5}],
        "classes": {"sql": "SELECT 1", "rows": [{"class": 1, "name": "relying", "images": 9, "removed": 0.5,
                    "alone": 0.5, "relies": 0.5, "low": 0.4, "high": 0.6}]},
        "associations": [{"answer": 1, "name": "tinted", "property": "red to green", "auc": 0.9, "p": 0.001,
                          "images": 30}],
    }  # fmt: skip
    facts["metadata"] = {"sql": "SELECT 1", "more": True, "rows": [{"name": "hospital", "value": "north", "images": 9,
                         "explained": 8, "judged": 8, "accuracy": 0.5, "low": 0.4, "high": 0.6,
                         "mean_confidence": 0.7}]}  # fmt: skip
    measured = {"images": 8, "value": 0.5, "rest": 0.7, "difference": -0.2,
                "low": -0.3, "high": -0.1, "p": 0.01, "harm": 0.1}  # fmt: skip
    facts["slices"] = {
        "columns": [{"name": "hospital", "numeric": False, "slices": 90, "images": 99, "judged": 40, "small": 49,
                     "small_images": 60, "beyond": 1, "not_shown": 20}],
        "slices": [{"name": "hospital", "value": "north", "slice": "north", "images": 9, "judged": 8, "accuracy": 0.5,
                    "low": 0.4, "high": 0.6, "mean_confidence": 0.7,
                    "model": {"accuracy": measured},
                    "metrics": [{"measure": "a drop", "target_rule": "", "method": "a method", **measured}]}],
        "least": 30, "shown": 20, "confident": 0.8, "tests": 2, "sql": "SELECT 1",
    }  # fmt: skip
    image = copy.deepcopy(facts["gallery"][0]["images"][0])
    facts["compare"]["pairs"] = [
        {"shard": place[0], "image_key": place[1], "label_name": "paired", "here": image, "there": copy.deepcopy(image)}
    ]
    return facts


def _exhibits(shown: dict[str, Any]) -> list[dict[str, Any] | None]:
    """Make a picture of every kind."""
    names = ("shard", "image_key", "label_name", "predicted_name", "confidence")
    image = {name: shown[name] for name in names}
    failed = {"example": "a key", "shard": "a.tar", "error_stage": "decode", "error_code": "torn", "detail": "A detail"}
    return [
        {"what": "region", "images": [image], "region": _REGION, "control": _REGION[::-1]},
        {"what": "object", "images": [image], "fill": [127, 127, 127]},
        {"what": "colour", "images": [image], "shift": [0.1, -0.2, 0.3]},
        {"what": "labels", "images": [image]},
        {"what": "maps", "images": [{**image, "map": _MAP}], "method": "gradcam", "mean_map": _MAP},
        {"what": "failures", "images": [], "rows": [failed]},
        None,
    ]


def pictures_of(facts: dict[str, Any]) -> dict[tuple[str, str], Original]:
    """Make an original image for every image of the gallery."""
    places = {(image["shard"], image["image_key"]) for group in facts["gallery"] for image in group["images"]}
    return {
        place: Original(np.asarray(Image.new("RGB", (96, 96), "#a0522d")), ((1.0, 2.0, 30.0, 40.0),))
        for place in places
    }


def audited() -> Audited:
    """Return the facts with their images."""
    facts = full_facts()
    return Audited(facts, pictures_of(facts))
