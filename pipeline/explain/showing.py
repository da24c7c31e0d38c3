"""What a notebook shows of explanations: the first images with their maps, and a table of the targets."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.explain.given_images import picture
from pipeline.maps.gallery import Page, Shown, chosen
from pipeline.maps.pictures import as_picture

if TYPE_CHECKING:
    from pipeline.explain.explanations import Explanations

_ROWS = 32
"""Most rows of the table."""


def heading(explanations: "Explanations") -> str:
    """Return one line: the number of images and rows, the methods and the layer."""
    images, rows = int(explanations.evidence.images_B[-1]) + 1, len(explanations.targets)
    what = f"{images} {'image' if images == 1 else 'images'}"
    what += f", {rows} targets" if rows != images else ""
    first = next(iter(explanations.maps.values()))
    grid = " x ".join(map(str, first.shape[1:]))
    return (
        f"Explanations of {what} by {', '.join(explanations.maps)}; layer {explanations.evidence.layer}, {grid} cells"
    )


def page(explanations: "Explanations") -> Page:
    """Return the pictures and the table of explanations."""
    rows = len(explanations.targets)
    count, methods, note = chosen(rows, list(explanations.maps))
    shown = shown_rows(explanations, range(count), methods)
    table = [_cells(explanations, row) for row in range(min(rows, _ROWS))]
    left = rows - len(table)
    more = f"{left} more rows" if left else ""
    columns = ("image", "class", "name", "confidence", "predicted", *(["constant maps"] * _any_constant(explanations)))
    return Page(heading(explanations), shown, "; ".join(filter(None, (note, more))), columns, table)


def shown_rows(explanations: "Explanations", rows: Sequence[int], methods: Sequence[str]) -> list[Shown]:
    """Return rows with their pictures and maps."""
    evidence, stated = explanations.evidence, explanations.probe.normalisation
    mean, std = (stated.mean, stated.std) if stated.is_known else ((0.0,), (1.0,))
    images, targets = evidence.images_B.tolist(), evidence.targets_B.tolist()
    confidences = evidence.target_confidences_B.tolist()
    return [
        Shown(
            name_of(explanations, targets[row]),
            f"image {images[row]}{_confidence(', ', confidences[row])}",
            as_picture(picture(evidence.pixels_BCHW[row], mean, std)),
            {name: explanations.maps[name][row].detach().float().cpu().numpy() for name in methods},
        )
        for row in rows
    ]


def name_of(explanations: "Explanations", index: int) -> str:
    """Return the name of a class, or `class INDEX` where none is known."""
    names = explanations.class_names
    return names[index] if index < len(names) else f"class {index}"


def _cells(explanations: "Explanations", row: int) -> list[str]:
    evidence = explanations.evidence
    target = int(evidence.targets_B[row])
    predicted = int(evidence.outputs.predicted(evidence.logits_BN[row : row + 1])[0])
    confidence = _confidence("", float(evidence.target_confidences_B[row]))
    constant = ", ".join(name for name, flags_B in explanations.degenerate.items() if bool(flags_B[row]))
    cells = [str(int(evidence.images_B[row])), str(target), name_of(explanations, target), confidence or "-"]
    cells.append("the same" if predicted == target else name_of(explanations, predicted))
    return [*cells, *([constant] if _any_constant(explanations) else [])]


def _any_constant(explanations: "Explanations") -> bool:
    return any(bool(flags_B.any()) for flags_B in explanations.degenerate.values())


def _confidence(before: str, value: float) -> str:
    """Format a confidence; raw outputs have none."""
    return f"{before}{value:.3f}" if value == value else ""
