"""Chooses the model of a new run file: the one that is named, one that lies beside the images, or a usual one."""

import itertools
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.model.transformers_source import CONFIG, PREFIX, WEIGHTS, local_folder
from pipeline.run.paths import absolute_path
from pipeline.settings.model import ModelConfig

if TYPE_CHECKING:
    from pipeline.model.zoo import LoadedModel

USUAL = "torchvision/resnet50"
_LIBRARIES = ("torchvision", "timm")
_IMAGENET = 1000
_MOST_ENTRIES, _MOST_HEADER = 1000, 100 << 20
_BLOCKS = {("conv2", 2): "resnet18", ("conv2", 6): "resnet34", ("conv3", 6): "resnet50", ("conv3", 23): "resnet101",
           ("conv3", 36): "resnet152"}  # fmt: skip
"""The ResNets of torchvision by the last convolution of their blocks, and the number of blocks of the third stage."""
_CLASSIFIER = re.compile(r"(?:fc|head|heads\.head|head\.fc|classifier|classifier\.\d)\.weight")
_BLOCK = re.compile(r"layer3\.(\d+)\.conv1\.weight")


@dataclass(frozen=True)
class ChosenModel:
    """The section `model` of a new run file.

    Attributes:
        fields: its keys and values.
        notes: why this model, and what to know of it; lines of the comment.
        loaded: the model; with random weights where its own must still be downloaded.
        tried: its keys and values as `loaded` was built.
        is_assumed: nobody named it, and it was not found either.
    """

    fields: Mapping[str, Any]
    notes: tuple[str, ...]
    loaded: "LoadedModel"
    tried: ModelConfig
    is_assumed: bool = False

    @property
    def outputs(self) -> int | None:
        """Return the number of its classes; None if its outputs are no classes."""
        return self.loaded.classes if self.loaded.outputs.has_confidences else None

    @property
    def is_imagenet(self) -> bool:
        """Return whether it classifies by the thousand classes of ImageNet."""
        return self.loaded.classes == _IMAGENET and str(self.fields["name"]).partition("/")[0] in _LIBRARIES


def choose_model(name: str | None, weights: str | None, folder: Path) -> ChosenModel:
    """Choose a model, and build it as a run would, so that a wrong name is known before anything is written.

    Args:
        name: as `model.name`, or the path of a folder of transformers, or of a .safetensors file; None: find one.
        weights: as `model.weights`; None for the model's own.
        folder: the images, which a model may lie beside.

    Raises:
        ConfigError: the model is unknown, or cannot be explained.
    """
    fields, notes = _named(name, weights) if name is not None else _found(folder, weights)
    tried = ModelConfig(**fields)
    if fields["name"].partition("/")[0] in _LIBRARIES and fields.get("weights", "DEFAULT") == "DEFAULT":
        notes = (*notes, "DEFAULT weights are downloaded once, unless they are in the library's cache.")
        tried = tried.model_copy(update={"weights": "random"})
    from pipeline.model.zoo import load_model  # late: it imports torch

    is_assumed = name is None and weights is None and fields.get("weights") == "DEFAULT"
    loaded = load_model(tried)
    return ChosenModel(fields, (*notes, *loaded.notes), loaded, tried, is_assumed)


def _named(name: str, weights: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the keys of a model that the user names."""
    path = Path(name).expanduser()
    if _is_transformers(path):
        return {"name": f"{PREFIX}{absolute_path(str(path))}"}, ()
    if path.suffix == ".safetensors" and path.is_file():
        return _by_weights(path)
    folder = local_folder(name)
    fields: dict[str, Any] = {"name": name if folder is None else f"{PREFIX}{absolute_path(str(folder))}"}
    if weights is not None:
        fields["weights"] = absolute_path(weights) if "." in weights else weights
        classes = _classes_in(_header(Path(weights)))
        if name.partition("/")[0] in _LIBRARIES and classes not in (None, _IMAGENET):
            fields["num_classes"] = classes
    elif ":" in name:
        fields["weights"] = None
    return fields, (("weights: null keeps the weights that the function loads.",) if fields.get("weights", "") is None
                    else ())  # fmt: skip


def _found(folder: Path, weights: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the keys of the one model that lies in the folder of images or beside it, or of a usual model."""
    if weights is not None:
        return _named(weights if Path(weights).is_file() else USUAL, weights)
    found = list(dict.fromkeys(_models_in(folder if folder.is_dir() else folder.parent)))
    recognised = [path for path in found if path.is_dir() or resnet_of(path) is not None]
    if len(recognised) == 1:
        fields, notes = _named(str(recognised[0]), None)
        return fields, (f"Found beside the images: {recognised[0].name}.", *notes)
    others = ", ".join(path.name for path in found[:3])
    seen = (f"Files of models lie beside the images ({others}): name one with `camatlas init --model`.",)
    return {"name": USUAL, "weights": "DEFAULT"}, (
        "No model was named, so this is a usual one for photographs, with the thousand classes of ImageNet.",
        "Your own: transformers/FOLDER, timm/NAME, package.module:function, or another of torchvision, with weights: "
        "FILE.safetensors and num_classes: N if it was fine-tuned.",
        *(seen if found else ()),
    )


def _models_in(folder: Path) -> Iterator[Path]:
    """Yield what looks like a model in a folder and beside it; at most a thousand entries of each are looked at."""
    for place in (folder, folder.parent):
        with_config = [place] if _is_transformers(place) else []
        for path in (*with_config, *sorted(itertools.islice(_entries(place), _MOST_ENTRIES))):
            if _is_transformers(path) or (path.suffix == ".safetensors" and path.is_file()):
                yield path


def _entries(place: Path) -> Iterator[Path]:
    try:
        yield from place.iterdir()
    except OSError:
        return


def _is_transformers(path: Path) -> bool:
    try:
        return (path / CONFIG).is_file() and any((path / name).is_file() for name in WEIGHTS)
    except OSError:
        return False


def _by_weights(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the keys of a model whose architecture its weights show."""
    found = resnet_of(path)
    if found is None:
        raise ConfigError.one(
            "--model",
            f"'{path}' holds weights, but not the name of their architecture",
            "name it, and the file with --weights: --model torchvision/NAME --weights FILE",
        )
    name, classes = found
    fields: dict[str, Any] = {"name": f"torchvision/{name}", "weights": absolute_path(str(path))}
    note = f"The names of the weights are those of torchvision's {name}."
    return fields | ({"num_classes": classes} if classes != _IMAGENET else {}), (note,)


def resnet_of(path: Path) -> tuple[str, int] | None:
    """Return which ResNet of torchvision a .safetensors file holds, and its number of classes, by the file's header."""
    header = _header(path)
    blocks = {int(found[1]) for name in header if (found := _BLOCK.fullmatch(name))}
    last = "conv3" if "layer3.0.conv3.weight" in header else "conv2"
    name, classes = _BLOCKS.get((last, len(blocks))), _classes_in(header)
    return None if name is None or classes is None else (name, classes)


def _classes_in(header: Mapping[str, Any]) -> int | None:
    """Return the number of classes that the weights of a classifier are for, by its usual names."""
    names = [name for name in header if _CLASSIFIER.fullmatch(name)]
    try:
        return int(header[max(names)]["shape"][0])
    except (ValueError, KeyError, TypeError, IndexError):  # no such weights, or none that are known
        return None


def _header(path: Path) -> dict[str, Any]:
    """Read the names and shapes in a .safetensors file; empty if it is none."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size)) if size < _MOST_HEADER else {}
    except (OSError, ValueError, struct.error, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}
