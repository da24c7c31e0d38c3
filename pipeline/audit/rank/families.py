"""The family of each metric: what it asks of a map."""

from collections.abc import Mapping

TRUTH = "truth"
"""Metrics that compare maps with exact values. Other metrics are judged by them, so no mean rank counts them."""

OTHER = "other"
"""Metrics of users, of which only the name is known."""

_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "faithfulness": (
        "average_drop", "increase", "average_gain", "insertion", "insertion_curve", "deletion", "deletion_curve",
        "road", "road_morf", "road_lerf", "infidelity", "occlusion_agreement",
    ),
    "robustness": ("max_sensitivity", "coherency"),
    "complexity": ("complexity", "sparsity", "entropy", "total_variation", "energy_outside_centre"),
    "localisation": (
        "pointing_game", "energy_in_box", "top_n_in_box", "miou_top20", "box_iou", "box_iou_curve",
        "box_removed_confidence", "box_only_confidence",
    ),
    "combined": ("adcc", "arcc"),
    OTHER: (),
    TRUTH: ("mass", "rank", "sign"),
}  # fmt: skip

FAMILIES: tuple[str, ...] = tuple(_MEMBERS)
"""The families in the order of tables.

`faithfulness` asks whether the model needs what the map shows, `robustness` whether the map stays when the image
changes little, `complexity` whether it shows little, `localisation` whether it lies on the object. `combined` metrics
are means of others.
"""

_FAMILY = {name: family for family, names in _MEMBERS.items() for name in names}


def family_of(name: str) -> str:
    """Return the family of a metric, by its name in the registry."""
    return _FAMILY.get(name, OTHER)
