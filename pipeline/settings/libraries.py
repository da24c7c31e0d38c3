"""Imports libraries that need care: torchvision, without torch's compiler, and matplotlib, which may be missing.

The compiler costs a second of every process, and no run uses it.
"""

import sys
from types import ModuleType

from pipeline.errors import ConfigError

_UNUSED = "torch._dynamo.utils"
"""The module that torchvision imports for one function of `roi_align`; it imports the whole compiler, with sympy."""


def import_torchvision() -> None:
    """Import torchvision; where it has not been imported yet, a stand-in takes the place of torch's compiler.

    The stand-in exists only during the import. What torchvision keeps of it calls the compiler when it is called. If
    another version of torchvision needs more of the compiler, torchvision is imported as usual.
    """
    if "torchvision" in sys.modules or _UNUSED in sys.modules:
        import torchvision  # another thread may be importing it, and is waited for

        return
    sys.modules[_UNUSED] = _stand_in()
    try:
        import torchvision
    except ImportError:
        del sys.modules[_UNUSED]
        import torchvision  # noqa: F401
    else:
        del sys.modules[_UNUSED]


def _stand_in() -> ModuleType:
    module = ModuleType(_UNUSED)
    module.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    return module


def _is_compile_supported(device_type: str) -> bool:
    """Ask torch's compiler, which is imported now."""
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))


def import_matplotlib() -> None:
    """Import matplotlib, which only figures need.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError.one("plot", "matplotlib is not installed", "run pip install 'camatlas[plot]'") from None
