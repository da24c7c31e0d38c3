"""torchvision is imported without torch's compiler; what it keeps of the stand-in works."""

import subprocess
import sys
from types import ModuleType

import pytest

from pipeline.settings import libraries

SCRIPT = """
import sys
from pipeline.settings.libraries import import_torchvision
import_torchvision()
from torchvision import models, ops
models.squeezenet1_1()
print(*(name for name in ("torch._dynamo", "torch._dynamo.utils", "torch._inductor", "sympy") if name in sys.modules))
print(ops.roi_align.__globals__["is_compile_supported"]("cpu"), "torch._dynamo.utils" in sys.modules)
import torch
boxes, images = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.ones(1, 1, 8, 8)
print(float(ops.roi_align(images, [boxes], 2).mean()))
print(float(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(()))))
"""


def test_torchvision_is_imported_without_the_compiler_which_still_works_afterwards() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["", "True True", "1.0", "2.0"]


def test_a_torchvision_that_needs_more_of_the_compiler_is_imported_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[bool] = []

    class Finder:
        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "torchvision":
                imported.append(libraries._UNUSED in sys.modules)
                raise ImportError("cannot import name 'more' from 'torch._dynamo.utils'")

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, libraries._UNUSED, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ImportError, match="more"):
        libraries.import_torchvision()
    assert imported == [True, False]


def test_what_has_been_imported_already_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("torch._dynamo.utils")
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, libraries._UNUSED, real)
    libraries.import_torchvision()
    assert sys.modules[libraries._UNUSED] is real
