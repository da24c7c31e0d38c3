"""The 1,000 classes of ImageNet: their WordNet ids, and the names under which other tools know them."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

WNID = re.compile(r"n\d{8}(?=$|[-_ .])")
"""A WordNet id, alone or before a name: `n02085620`, `n02085620-Chihuahua`."""

_SAME = 0.95
"""Share of names that must be known for a list of 1,000 to be that of ImageNet; tools reword a few."""


@cache
def synsets() -> Mapping[str, str]:
    """Return the words of each class by its WordNet id, in the order of the classes."""
    text = files("pipeline.data.sources").joinpath("imagenet_1k.tsv").read_text(encoding="utf-8")
    pairs = (line.partition("\t") for line in text.splitlines() if not line.startswith("#"))
    return {wnid: words for wnid, _, words in pairs}


@cache
def wnids() -> Mapping[str, int]:
    """Return the index of each WordNet id; ImageNet numbers its classes in the order of their ids."""
    return {wnid: index for index, wnid in enumerate(synsets())}


def wnid_of(name: str) -> str | None:
    """Return the WordNet id that a name is, or begins with; None if there is none."""
    found = WNID.match(name)
    return found.group() if found else None


def plain(name: str) -> str:
    """Write a name in the one way in which aliases are compared: no case, spaces for underscores, one id."""
    return wnid_of(name) or " ".join(name.replace("_", " ").casefold().split())


def aliases(names: Sequence[str]) -> dict[str, int]:
    """Return the classes by WordNet id, and by each name that only one class has.

    Args:
        names: the names of the classes that torchvision uses; timm and Hugging Face use all words of a synset
            ("tench, Tinca tinca"), Keras its first word with underscores.
    """
    found: dict[str, set[int]] = {}
    for index, (words, name) in enumerate(zip(synsets().values(), names, strict=True)):
        for text in (name, words, *words.split(", ")):
            found.setdefault(plain(text), set()).add(index)
    certain = {text: min(indices) for text, indices in found.items() if len(indices) == 1}
    return {**certain, **wnids()}


def are_imagenet(names: Sequence[str]) -> bool:
    """Return whether names are those of the 1,000 classes in their order, in the words of any tool."""
    if len(names) != len(synsets()):
        return False
    known = aliases(list(synsets().values()))
    places = [{known.get(plain(word)) for word in (name, *name.split(", "))} - {None} for name in names]
    in_order = all(place <= {index} for index, place in enumerate(places))
    return in_order and sum(map(bool, places)) >= _SAME * len(names)
