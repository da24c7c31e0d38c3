"""Sets formulas as MathML, which browsers draw without a script."""

from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

_CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
"""How many parts these elements have; the converter leaves out those that LaTeX does not give."""


def mathml(latex: str, display: str = "inline") -> str:
    """Convert LaTeX to MathML.

    Args:
        latex: one formula, on one line.
        display: `inline` in a sentence, or `block`.

    Raises:
        ValueError: the formula has a mistake, or a command that the converter does not know.
    """
    try:
        made: str = convert(latex, display=display)
    except Exception as error:  # the converter has many exceptions without a common class
        raise ValueError(f"cannot set '{latex}': {type(error).__name__} {error}") from error
    if "\\" in made or "<mi>&</mi>" in made:
        raise ValueError(f"cannot set '{latex}': it has a command that latex2mathml does not know")
    for element in ElementTree.fromstring(made).iter():  # noqa: S314 - made by the line above
        name = element.tag.rpartition("}")[2]
        if len(element) != _CHILDREN.get(name, len(element)):
            raise ValueError(f"cannot set '{latex}': a part of <{name}> is missing")
    return made


def _set(latex: str, display: str) -> str:
    try:
        return mathml(" ".join(latex.split()), display)
    except ValueError as error:
        raise ExtensionError(str(error)) from error


def _visit_inline(translator: HTML5Translator, node: nodes.Element) -> None:
    translator.body.append(_set(node.astext(), "inline"))
    raise nodes.SkipNode


def _visit_block(translator: HTML5Translator, node: nodes.Element) -> None:
    clauses = [_set(clause, "block") for clause in node.astext().split(r"\qquad")]  # a line may break between them
    translator.body.append(f'<div class="math">{"".join(f"<span>{clause}</span>" for clause in clauses)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
