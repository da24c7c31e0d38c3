"""Names of layers: a module's name, one of its calls as `name#2`, and what goes into it as `name:input`."""

import re
from dataclasses import dataclass, replace

_PARTS = re.compile(r"(?P<module>.*?)(?:#(?P<call>[1-9][0-9]*))?(?P<input>:input)?", re.DOTALL)


@dataclass(frozen=True)
class LayerName:
    """One tensor of a forward pass: what a module gives, or what goes into it.

    Attributes:
        module: the module's name in the model.
        call: which call of a module that runs several times, from 1; None for a module that runs once.
        is_input: whether the tensor is the input of the module instead of its output.
    """

    module: str
    call: int | None = None
    is_input: bool = False

    @classmethod
    def parse(cls, text: str) -> "LayerName":
        """Read a name as users write it: `blocks.3`, `relu#2`, `bn1:input` or `relu#2:input`."""
        parts = _PARTS.fullmatch(text)
        assert parts is not None, "every text has at least a module"
        call = parts["call"]
        return cls(parts["module"], None if call is None else int(call), parts["input"] is not None)

    def __str__(self) -> str:
        call = "" if self.call is None else f"#{self.call}"
        return f"{self.module}{call}{':input' if self.is_input else ''}"

    def of_module(self, module: str) -> "LayerName":
        """Return the same call and tensor of another module."""
        return replace(self, module=module)


def module_of(layer: str) -> str:
    """Return the name of the module whose output or input a layer is."""
    return LayerName.parse(layer).module
