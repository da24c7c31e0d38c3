"""Keys of the members of a tar: up to the first dot of the base name, unless that makes several images one sample.

webdataset ends a key at the first dot, so that `x.input.jpg` and `x.cls` are one sample. Files that people pack with
tar have dots in their names too: `scan.1.jpg` and `scan.2.jpg` are two images. All names of a tar show which of the
two it is. They are listed only when a name has a dot before the suffix of an image.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.data.sources.row_finder import split_name
from pipeline.settings.data import ANNOTATION_SUFFIXES, PARTS_SUFFIX

_NUMBER = re.compile(r"[\d_-]*\d[\d_-]*")
_LITTER = frozenset((".ds_store", "thumbs.db", "desktop.ini"))
_COMPRESSED = ("gz", "bz2", "xz", "zst")
_ROLES = frozenset(
    ("mask", "masks", "seg", "segmentation", "depth", "target", "output", "gt", "edge", "edges", "heatmap", "thumb")
)
"""Words before the suffix that say what a file is to its sample, and not which sample it is."""


@dataclass(frozen=True)
class MemberRules:
    """Which members of a tar are the image and the label of a sample, and which are no part of it (`data.members`).

    Attributes:
        image, label: suffixes, such as `input.jpg` and `output.cls`; None means the usual ones.
        ignore: patterns of names, such as `*.mask.png`.
    """

    image: str | None = None
    label: str | None = None
    ignore: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Return whether a member or a file is left out, by its path or its base name."""
        names = (name, name.rpartition("/")[2])
        return any(fnmatchcase(each, pattern) for pattern in self.ignore for each in names)


def is_litter(name: str) -> bool:
    """Return whether a member is what a file manager, or the author of a dataset, leaves beside images."""
    base = name.rpartition("/")[2].lower()
    return base.startswith("._") or base in _LITTER or base.endswith(".md")


class Naming:
    """Splits the names of the members of one tar into keys and suffixes.

    Args:
        suffixes: those of images; empty for any that is not one of annotations.
        rules: the members that the run file names.
        all_names: lists all names of the tar; called at most once, and only if a name needs it.
        long_keys: keys that reach beyond the first dot, if they are known; then no names are listed.
    """

    def __init__(
        self,
        suffixes: Sequence[str],
        rules: MemberRules,
        all_names: Callable[[], Iterable[str]],
        long_keys: frozenset[str] | None = None,
    ) -> None:
        self.suffixes, self.rules, self._all_names = suffixes, rules, all_names
        self._long_keys = long_keys
        self.has_parts = not any(map(_shows_parts, (rules.image or "", *suffixes)))
        """Whether `parts.png` is a mask of the parts of an image, and not what the run file calls an image."""

    def split(self, name: str) -> tuple[str, str]:
        """Return the key of a member and its suffix in lower case."""
        first = split_name(name)
        if "." not in first[1] or (first[1] == PARTS_SUFFIX and self.has_parts):
            return first
        if self._long_keys is None:
            is_side = before_annotation(first[1], has_parts=self.has_parts) is not None
            if not is_side and self._middle(first[1]) in (None, ""):
                return first
            self._long_keys = self._find_long_keys()
        return self._longest(name) or first

    def _longest(self, name: str) -> tuple[str, str] | None:
        path = name.removeprefix("./")
        dots = [i for i, letter in enumerate(path) if letter == "." and i > path.rfind("/")]
        keys = self._long_keys or ()
        return next(((path[:i], path[i + 1 :].lower()) for i in reversed(dots[1:]) if path[:i] in keys), None)

    def _find_long_keys(self) -> frozenset[str]:
        names = [name for name in self._all_names() if not self.rules.ignores(name)]
        if self.rules.image is None:
            return long_keys(names, self._middle, has_parts=self.has_parts)
        ends = f".{self.rules.image}"
        images = (name for name in names if name.lower().endswith(ends) and not self._is_mask(name))
        return frozenset(name.removeprefix("./")[: -len(ends)] for name in images)

    def _is_mask(self, name: str) -> bool:
        return self.has_parts and _shows_parts(split_name(name)[1])

    def _middle(self, suffix: str) -> str | None:
        """Return what stands between the key and the suffix of an image; None if it is not an image."""
        if self.rules.image is not None:
            return suffix[: -len(self.rules.image)].rstrip(".") if suffix.endswith(self.rules.image) else None
        return middle_of(suffix, self.suffixes)


def middle_of(suffix: str, of_images: Sequence[str]) -> str | None:
    """Return what stands before the known part of an image's suffix: `v1` of `v1.jpg`; None if it is not an image."""
    parts = suffix.split(".")
    if not of_images:
        known = 2 if parts[-1] in _COMPRESSED else 1
        return None if parts[-1] in ANNOTATION_SUFFIXES else ".".join(parts[:-known])
    tails = (index for index in range(len(parts)) if ".".join(parts[index:]) in of_images)
    return next((".".join(parts[:index]) for index in tails), None)


def before_annotation(suffix: str, *, has_parts: bool = True) -> str | None:
    """Return what stands before the suffix of an annotation: `v1` of `v1.cls`; None if it is none."""
    if has_parts and _shows_parts(suffix):
        return suffix[: -len(PARTS_SUFFIX)].removesuffix(".")
    before, _, last = suffix.rpartition(".")
    return before if last in ANNOTATION_SUFFIXES else None


def _shows_parts(suffix: str) -> bool:
    return f".{suffix}".endswith(f".{PARTS_SUFFIX}")


def long_keys(names: Iterable[str], middle: Callable[[str], str | None], *, has_parts: bool = True) -> frozenset[str]:
    """Return the keys of images that reach beyond the first dot; empty for a tar with one image in each sample.

    Several images up to the first dot are several samples, unless what distinguishes them are words: a mask, or `left`
    and `right` of every sample.
    """
    middles: dict[str, set[str]] = defaultdict(set)
    annotated: dict[str, set[str]] = defaultdict(set)
    for name in names:
        key, suffix = split_name(name)
        if (before := before_annotation(suffix, has_parts=has_parts)) is not None:
            annotated[key].add(before)
        elif (found := middle(suffix)) is not None:
            middles[key].add(found)
    uses = Counter(found for several in middles.values() for found in several)
    own = {key: _with_own_annotation(found, annotated[key]) for key, found in middles.items()}
    if not any(own[key] or _are_samples(found, uses) for key, found in middles.items()):
        return frozenset()
    return frozenset(
        f"{key}.{middle}"
        for key, several in middles.items()
        for middle in several
        if middle and (middle in own[key] or not _is_role(middle))
    )


def _with_own_annotation(middles: set[str], annotated: set[str]) -> set[str]:
    """Return what stands before the suffixes of images that have an annotation under exactly their name.

    None where the sample has an annotation but no image under its short key: that one describes all its members.
    """
    return set() if "" in annotated and "" not in middles else (middles & annotated) - {""}


def _are_samples(middles: set[str], uses: Counter[str]) -> bool:
    """Return whether what stands before the suffixes of several images numbers or names different samples."""
    if "" in middles:  # beside `x.jpg`, a word is a variant of it, but a number is another image
        return any(_NUMBER.fullmatch(middle) for middle in middles)
    names = [middle for middle in middles if not _is_role(middle)]
    return len(names) > 1 and any(uses[name] == 1 or any(map(str.isdigit, name)) for name in names)


def _is_role(middle: str) -> bool:
    return middle.rpartition(".")[2] in _ROLES
