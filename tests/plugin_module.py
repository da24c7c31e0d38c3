"""A user's module of plug-ins, good and bad ones, in a working folder, and what is said of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cams import build_methods
from pipeline.errors import ConfigError
from pipeline.metrics import build_metrics

MODULE = '''
from dataclasses import dataclass, field
from typing import Annotated, ClassVar
import pydantic, pydantic.dataclasses
import camatlas
from helper_of_mine import base

@dataclass(frozen=True)
class MyCam(camatlas.BaseMethod):
    """Mean of the activations."""
    power: float = 1.0
    cells: tuple[int, ...] = (1, 2)
    presets: ClassVar = {"square": {"power": 2.0}}
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1) ** self.power

@dataclass(frozen=True)
class Checked(camatlas.BaseMethod):
    share: Annotated[float, pydantic.Field(gt=0, le=1)]
    mode: str = "mean"
    def __post_init__(self):
        if self.mode == "worst":
            raise KeyError("worst")
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

@pydantic.dataclasses.dataclass(frozen=True)
class Strict(camatlas.BaseMethod):
    steps: int = pydantic.Field(3, ge=1)
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

class Plain(camatlas.BaseMethod):
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

@dataclass
class Mutable(Plain):
    pass

@dataclass(frozen=True)
class Silent(camatlas.BaseMethod):
    pass

@dataclass(frozen=True)
class Other(camatlas.BaseMethod):
    def __call__(self, image):
        return image

@dataclass(frozen=True)
class Needless:
    def __call__(self, evidence, probe):
        return evidence.acts_BKuv.mean(1)

@dataclass(frozen=True)
class WrongNeeds(Needless):
    needs: ClassVar = {"gradients": True}

@dataclass(frozen=True)
class Reserved(Needless):
    needs: ClassVar = camatlas.Needs()
    name: str = "mine"

@dataclass(frozen=True)
class Named(MyCam):
    name: ClassVar[str] = "gradcam"

@dataclass(frozen=True)
class Peak(camatlas.BaseMetric):
    better: ClassVar = "higher"
    unit: ClassVar = "[0, 1]"
    def __call__(self, batch):
        return batch.heatmaps_BMHW.amax((2, 3))

@dataclass(frozen=True)
class Aimless(Peak):
    better: ClassVar = "up"
    reads: ClassVar = "pixels"
    truth: ClassVar = "masks"
    unit: ClassVar = None

@dataclass(frozen=True)
class Bare:
    def __call__(self, batch):
        return batch.heatmaps_BMHW.amax((2, 3))

@dataclass(frozen=True)
class Profile(Peak):
    curve: ClassVar = True

def function(evidence, probe):
    return evidence.acts_BKuv.mean(1)

made = MyCam()
number = 3
'''


def working_folder(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a working folder with modules; what they add to Python's import system is taken out again."""
    (folder / "cams_of_mine.py").write_text(MODULE)
    (folder / "helper_of_mine").mkdir()
    (folder / "helper_of_mine" / "__init__.py").write_text("from . import base\n")
    (folder / "helper_of_mine" / "base.py").write_text("SIDE = 3\n")
    (folder / "unused_of_mine.py").write_text("1 / 0\n")
    patch.chdir(folder)
    patch.setattr(sys, "path", [*sys.path])
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_of_mine")]:
        del sys.modules[name]


def mistakes_of(*specs: Any, metrics: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_metrics(specs) if metrics else build_methods(specs)
    return [str(mistake) for mistake in caught.value.mistakes]
