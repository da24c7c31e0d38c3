"""Checks that cells of the target layer lie where maps show them: maps are laid over the whole image, edge to edge."""

from pipeline.errors import LayerError
from pipeline.model.bands import SIDES, crossed_sides
from pipeline.model.extents import centres_of_outer_cells
from pipeline.model.layout import View
from pipeline.model.layout_trial import Trial

_CELLS, _PART = 1.0, 0.04
"""Outer cells may lie beside their places in the map by the larger one of so many cells and this part of the image."""
_ROUNDING = 0.01


def check_registration(trial: Trial, view: View, layer: str) -> tuple[str, ...]:
    """Return a sentence if maps are stretched; raise LayerError if the grid reaches out of the image.

    Convolutions without padding leave the outer cells inside of the image, so that maps, as they are laid over images
    everywhere, are wider than what they show. Padding by the model itself brings cells beside the image.

    Args:
        trial: the model, how its outputs are read, and the shape of the images.
        view: layout of the target layer.
        layer: its name.
    """
    outside, inside = list[str](), list[str]()
    for axis, (cells, pixels) in enumerate(zip((view.height, view.width), trial.size, strict=True)):
        centres = centres_of_outer_cells(trial, view, layer, axis)
        inwards = (0.0, 0.0) if centres is None else (centres[0] - 0.5 / cells, 1 - 0.5 / cells - centres[1])
        allowed = max(_CELLS / cells, _PART) + _ROUNDING
        if centres is None or max(map(abs, inwards)) > allowed:  # cells may read pixels that padding has mirrored
            outside += crossed_sides(trial, view, layer, axis)
        placed = tuple(zip(SIDES[axis], inwards, strict=True))
        outside += [side for side, part in placed if part < -allowed and side not in outside]
        inside += [f"{pixels * part:.0f} pixels at the {side}" for side, part in placed if part > allowed]
    if outside:
        raise LayerError(
            f"the grid of layer '{layer}' reaches out of the image ({', '.join(outside)}): the model pads, shifts or "
            "shrinks its input, and maps would lie in wrong places; do this before the model (model.preprocess)"
        )
    if not inside:
        return ()
    return (
        f"the outer cells of layer '{layer}' lie further inside of the image than maps show them, because convolutions "
        f"before it have no padding: {', '.join(inside)} of {trial.size[0]} x {trial.size[1]}",
    )
