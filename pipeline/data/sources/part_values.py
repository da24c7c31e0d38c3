"""Parses the parts of an image from the members of its sample: the mask `parts.png`, and their values in `.json`.

The field `parts` of the `.json` member is an object with `values`, one number for each part; `target`, the class that
they are of; and maybe `weights`, the sha256 of the model's weights. Its other fields are ignored.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from pipeline.data.sources.box_formats import BadAnnotationError
from pipeline.data.sources.members import json_field
from pipeline.data.sources.shards import PartValues
from pipeline.settings.data import PARTS_SUFFIX

MOST_PARTS = 8
"""Most parts of an image."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def parts_in(members: Mapping[str, bytes], *, needed: bool) -> tuple[PartValues | None, bytes | None]:
    """Return the values of an image's parts and their encoded mask; None for what it does not have.

    Args:
        members: the members of the sample, by suffix.
        needed: whether the run reads parts. If not, invalid ones count as none, and the mask is left out.

    Raises:
        BadAnnotationError: the run reads parts, and values or mask are missing or invalid.
    """
    mask = members.get(PARTS_SUFFIX)
    try:
        values = _part_values(members, has_mask=mask is not None)
    except BadAnnotationError:
        if needed:
            raise
        return None, None
    return values, mask if needed else None


def _part_values(members: Mapping[str, bytes], *, has_mask: bool) -> PartValues | None:
    """Read the values; a field `parts` without values and without a mask is something else."""
    found = json_field(members["json"], "parts") if "json" in members else None
    fields = found if isinstance(found, dict) else {}
    if not has_mask and "values" not in fields:
        return None
    if not has_mask:
        raise _bad(f"values of parts without their mask: there is no member {PARTS_SUFFIX}")
    if "values" not in fields:
        raise _bad(
            f"a mask of parts without their values: parts.values is missing in the .json member of {PARTS_SUFFIX}"
        )
    return PartValues(_values(fields["values"]), _target(fields.get("target")), _weights(fields.get("weights")))


def _values(values: Any) -> tuple[float, ...]:  # noqa: ANN401 - JSON
    if not isinstance(values, list) or not values:
        raise _bad("parts.values is not a list of one number for each part")
    if len(values) > MOST_PARTS:
        raise _bad(f"{len(values)} values of parts; an image has at most {MOST_PARTS} parts")
    if wrong := [value for value in values if not _is_finite(value)]:
        raise _bad(f"the value {str(wrong[0])[:40]} of a part is not a finite number")
    return tuple(map(float, values))


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _target(target: object) -> int:
    if isinstance(target, bool) or not isinstance(target, int) or target < 0:
        raise _bad(f"parts.target is the index of a class, an integer from 0 on, not {str(target)[:40]}")
    return target


def _weights(weights: object) -> str:
    text = "" if weights is None else str(weights).lower()
    if text and not _SHA256.fullmatch(text):
        raise _bad(f"parts.weights is the sha256 of the model's weights, 64 hex digits, not '{text[:40]}'")
    return text


def _bad(detail: str) -> BadAnnotationError:
    return BadAnnotationError("parts", detail)
