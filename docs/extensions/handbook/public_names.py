"""The reference of Python: what `import camatlas` offers, for autodoc to describe."""

import inspect

import camatlas

_DIRECTIVES = {True: "autoclass", False: "autofunction"}


def page() -> str:
    """Write the page."""
    return "\n".join(_section(name) for name in camatlas.__all__)


def _section(name: str) -> str:
    found = getattr(camatlas, name)
    directive = "autoexception" if inspect.isclass(found) and issubclass(found, Exception) else ""
    directive = directive or _DIRECTIVES[inspect.isclass(found)]
    return f"(camatlas.{name})=\n## `camatlas.{name}`\n\n```{{eval-rst}}\n.. {directive}:: camatlas.{name}\n```\n"
