"""Renders the report from the facts and the original images: one self-contained HTML file."""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from pipeline.audit import charts
from pipeline.audit.facts import Audited
from pipeline.audit.figures import grey_map, outline, thumbnail, thumbnail_size
from pipeline.audit.output_charts import chapter_charts
from pipeline.errors import ConfigError
from pipeline.maps.pictures import VIRIDIS, picture_note
from pipeline.results.leaderboard import note_of_rules
from pipeline.results.source_images import Original
from pipeline.settings.preprocess import Preprocess

_TEMPLATES = files("pipeline.audit") / "templates"
_SECTIONS = (
    ("checked", "What was checked"), ("findings", "Findings"), ("provenance", "Provenance"), ("coverage", "Coverage"),
    ("accuracy", "Accuracy"), ("slices", "Slices"), ("leaderboard", "Methods"), ("classes", "Classes"),
    ("gallery", "Gallery"), ("context", "Context reliance"), ("clusters", "Clusters of maps"),
    ("compare", "Comparison"), ("drift", "Drift"), ("failures", "Failures"), ("cost", "Cost"),
    ("reproduce", "Reproduce"), ("signoff", "Sign-off"),
)  # fmt: skip
METRICS_A_PAGE = 4
"""Metrics beside each other on paper; wider tables are split."""
_SOFTMAX = {"kind": "softmax", "independent": False, "absent": {}}
"""What the templates read of outputs in facts that do not name their kind."""
_CONTROLS = dict.fromkeys([*range(9), 11, 12, *range(14, 32), *range(127, 160)], "\ufffd")


def render(facts: Mapping[str, Any], pictures: Mapping[tuple[str, str], Original]) -> str:
    """Render the page as one HTML document.

    Args:
        facts: the facts of `facts.audit`.
        pictures: original images by (shard, image key); an image without an entry is shown as maps only.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_read),
        finalize=_without_controls,
    )  # fmt: skip
    environment.filters |= {
        "number": _number, "percent": _percent, "small": _small, "pretty": _pretty, "grey_map": grey_map,
        "counted": _counted, "outline": outline,
    }  # fmt: skip
    environment.globals["zip"] = zip
    environment.tests["single"] = lambda clusters: len(clusters) == 1
    style, script = _read("report.css"), _read("report.js")
    places = _places(facts)
    preprocess = Preprocess.of(facts["provenance"]["preprocessing"])
    shown = {key: _shown(original) for key, original in sorted(pictures.items()) if key in places}
    ids: Mapping[tuple[str, str], str] = defaultdict(str, {key: f"p{i}" for i, key in enumerate(shown, 1)})
    return environment.get_template("report.html").render(
        **{"outputs": _SOFTMAX, **facts},
        style=style,
        style_hash=_digest(style),
        script=script,
        script_hash=_digest(script),
        channels=[_channel(index) for index in (0, 2, 4)],
        contents=[(key, title) for key, title in _SECTIONS if _has_section(facts, key)],
        methods=list(dict.fromkeys(row["method"] for row in facts["leaderboard"]["rows"])),
        energy=next((label for label, about in facts["metrics"].items() if about["name"] == "energy_in_box"), ""),
        rules_note=note_of_rules(row["target_rule"] for row in facts["leaderboard"]["rows"]),
        charts=_charts(facts),
        metrics_a_page=METRICS_A_PAGE,
        metric_numbers={name: number for number, name in enumerate(facts["metrics"], 1)},
        shown=shown,
        ids=ids,
        boxes=defaultdict(list, {key: picture["boxes"] for key, picture in shown.items()}),
        thumb=thumbnail_size(*preprocess.size),
        picture_note=picture_note(preprocess.channels) if shown else "",
    )


def fitted(audited: Audited, budget: int) -> tuple[Mapping[str, Any], str]:
    """Render the page within a byte budget, with fewer images per gallery group if necessary.

    Returns:
        The facts with the gallery as shown, and the page.

    Raises:
        ConfigError: the page exceeds the budget with three images per group.
    """
    for images in (48, 32, 16, 12, 8, 5, 3):
        facts = audited.facts | {"gallery": [g | {"images": g["images"][:images]} for g in audited.facts["gallery"]]}
        html = render(facts, audited.pictures)
        if len(html.encode("utf-8", "backslashreplace")) <= budget:
            return facts, html
    raise ConfigError.one("RUN", f"the report is larger than {budget} bytes", "use --no-images or --gallery large")


def _read(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _has_section(facts: Mapping[str, Any], section: str) -> bool:
    if section in ("slices", "drift"):
        return facts.get(section) is not None
    return section != "compare" or facts["compare"] is not None


def _charts(facts: Mapping[str, Any]) -> dict[str, Any]:
    rows: Sequence[Mapping[str, Any]] = facts["leaderboard"]["rows"]
    judging = [name for name, about in facts["metrics"].items() if about["better"] != "neither"]
    return {
        "reliability": charts.reliability(facts["accuracy"]["reliability"]["rows"]),
        "histogram": charts.histogram(facts["accuracy"]["histogram"]["rows"]),
        "whiskers": {name: charts.whiskers(rows, name) for name in judging} if len(rows) > 1 else {},
        "agreement": charts.agreement(facts["agreement"]["rows"]),
        "reliance": charts.reliance(facts["background"]["points"]),
        **chapter_charts(facts.get("outputs", _SOFTMAX)),
    }


def _places(facts: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return shard and key of every image on the page."""
    images = [image for group in facts["gallery"] for image in group["images"]]
    images += (facts["compare"] or {"pairs": []})["pairs"]
    images += [image for one in facts["findings"] if one["picture"] for image in one["picture"]["images"]]
    clusters = [cluster for entry in facts["strategies"] for cluster in entry["clusters"]]
    nearest = [place for cluster in clusters for place in cluster["nearest"]]
    return {(image["shard"], image["image_key"]) for image in images} | {(shard, key) for shard, key in nearest}


def _shown(original: Original) -> dict[str, Any]:
    image = original.image
    width, height = thumbnail_size(image.height, image.width)
    scales = (width / image.width, height / image.height) * 2
    boxes = [
        [round(edge * scale, 2) for edge, scale in zip(box, scales, strict=True)] for box in original.boxes_xyxy or ()
    ]
    return {"address": thumbnail(image), "boxes": boxes}


def _channel(index: int) -> str:
    """Return the transfer table of one colour channel (VIRIDIS) for the SVG filter."""
    return " ".join(f"{int(stop[index : index + 2], 16) / 255:.4f}" for stop in VIRIDIS)


def _without_controls(value: object) -> object:
    """Replace control characters in text, which HTML does not allow."""
    return value.translate(_CONTROLS) if type(value) is str else value


def _counted(images: int) -> str:
    return f"{images} image" if images == 1 else f"{images} images"


def _number(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _small(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _pretty(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
