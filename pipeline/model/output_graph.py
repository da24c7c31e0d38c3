"""Names the functions that made a model's outputs, from the graph that autograd records."""

import re
from collections.abc import Callable, Iterator
from typing import Any

LINEAR = frozenset({"Addmm", "Mm", "Bmm", "Baddbmm", "Mv", "Addmv", "Convolution", "MkldnnConvolution", "Linear"})
"""Functions of linear layers: their outputs are logits, even if they are in [0, 1]."""
_VIEWS = frozenset(
    {"View", "Reshape", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "Clone", "Alias", "ToCopy"}
    | {"UnsafeView", "UnsafeSplit", "Expand", "Permute", "Transpose", "T", "Copy", "CopySlices", "Split", "Unbind"}
)
"""Functions that do not change a number."""
_CHOICES = frozenset(
    {"Max", "Min", "Amax", "Amin", "Maximum", "Minimum", "Topk", "Sort", "Kthvalue", "Median", "Gather", "Index"}
    | {"IndexSelect", "MaxPool2DWithIndices", "AdaptiveMaxPool2D"}
)
"""Functions that choose some of the numbers."""
_AFFINE = _VIEWS | _CHOICES | {"Add", "Sub", "Rsub", "Mul", "Div", "Neg", "Mean", "Sum", "Stack", "Cat"}
"""Functions that shift, scale, average, choose or join numbers, but for linear layers and the next."""
_POOLS = ("AvgPool", "AdaptiveAvgPool", "Upsample")
_LENGTHS = frozenset({"Norm", "LinalgVectorNorm", "Sqrt"})
_MOST_NODES = 256

Node = Any
"""A node of autograd's graph, or None."""


def name_of(node: Node) -> str:
    """Return the name of a function without the numbers of its variants; "" for None."""
    return "" if node is None else re.sub(r"^.*::|Backward\w*$", "", str(node.name()))


def behind_views(node: Node) -> Node:
    """Return the function behind reshapes and copies."""
    while name_of(node) in _VIEWS:
        node = next(iter(_before(node)), None)
    return node


def sources_of(node: Node) -> tuple[frozenset[str], frozenset[str]]:
    """Return the functions whose results reach the outputs by nothing but shifts, scales, means, choices and joins.

    Returns:
        their names, and the names of the functions between them and the outputs. A number times itself is a `Square`,
        and a product of vectors of length one, without its scale, a `Cosine`.
    """
    passed: dict[Node, str] = {}
    sources = frozenset(map(_kind_of, _reached(node, _is_end, passed)))
    return sources, frozenset(passed.values())


def _before(node: Node) -> list[Node]:
    """Return the functions whose results a function uses, but for those that hold a parameter."""
    before = [following for following, _ in node.next_functions if following is not None]
    return [each for each in before if not str(each.name()).endswith("AccumulateGrad")]


def _is_affine(node: Node) -> bool:
    return name_of(node) in _AFFINE or name_of(node).startswith(_POOLS)


def _is_end(node: Node) -> bool:
    return not _is_affine(node) or _kind_of(node) != name_of(node)


def _kind_of(node: Node) -> str:
    if _is_square(node):
        return "Square"
    return "Cosine" if _is_cosine(node) else name_of(node)


def _is_square(node: Node) -> bool:
    """Tell whether a function multiplies a result with itself, or two shifts and scales of one result."""
    before = _before(node)
    if name_of(node) not in {"Mul", "Bmm"} or len(before) != 2:
        return False
    first, second = (set(_reached(each, lambda other: not _is_affine(other), {})) for each in before)
    return first == second and bool(first)


def _is_cosine(node: Node) -> bool:
    """Tell whether a function multiplies vectors that were divided by their lengths, or divides a product by these."""
    if name_of(node) == "Div":
        return _divides_by_length(node)
    if name_of(node) not in LINEAR | {"Mul"}:
        return False
    factors = [behind_views(each) for each in _before(node)]
    return bool(factors) and all(name_of(each) == "Div" and _divides_by_length(each) for each in factors)


def _divides_by_length(node: Node) -> bool:
    _, (each, _) = node.next_functions
    while each is not None and (name_of(each).startswith("Clamp") or _is_affine(each)):  # at least a small number
        each = next(iter(_before(each)), None)
    return name_of(each) in _LENGTHS


def _reached(node: Node, is_end: Callable[[Node], bool], passed: dict[Node, str]) -> Iterator[Node]:
    """Yield the first functions of a kind on every way back from a function, and note those between."""
    known, waiting = set[Node](), [node]
    while waiting and len(known) < _MOST_NODES:
        each = waiting.pop()
        if each is None or each in known:
            continue
        known.add(each)
        if is_end(each):
            yield each
        else:
            passed[each] = name_of(each)
            waiting += _before(each)
