"""The run file: YAML, validated, unknown keys refused, every mistake found in one go."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.codec import MapDtype
from pipeline.errors import ConfigError, Mistake, Mistakes, nearest

TargetRule = Literal["predicted", "label"]
Spec = str | dict[str, Any]
Positive = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ColumnsConfig(_Section):
    """Names of the columns of Parquet inputs."""

    image: str = "image"
    key: str = "key"
    label: str = "label"
    boxes: str = "boxes"


class DataConfig(_Section):
    """Which images, and what is known of them."""

    shards: str | Annotated[list[str], Field(min_length=1)]
    labels: str | None = None
    boxes: str | None = None
    classes: str | None = None
    columns: ColumnsConfig = ColumnsConfig()
    chunk_images: Positive = 128
    formats: Annotated[list[str], Field(min_length=1)] = ["JPEG", "PNG", "WEBP"]
    max_pixels: Positive = 64_000_000
    limit: Positive | None = None


class PreprocessConfig(_Section):
    """Own preprocessing; `resize: null` squashes to the crop size."""

    resize: Positive | None = 256
    crop: Positive = 224
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class ModelConfig(_Section):
    """Which model, with which weights, seen at which layer."""

    name: str
    weights: str | None = "DEFAULT"
    num_classes: Positive | None = None
    layer: str = "auto"
    preprocess: Literal["default", "squash"] | PreprocessConfig = "default"
    allow_pt: bool = False


class ExplainConfig(_Section):
    """What to explain, how, and how to measure it."""

    targets: TargetRule = "predicted"
    methods: Annotated[list[Spec], Field(min_length=1)] = ["gradcam"]
    metrics: list[Spec] = []
    seed: int = 0


class ComputeConfig(_Section):
    """Where and how fast; nothing here but `precision` changes a row."""

    workers: Literal["auto"] | Positive = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    batch: Literal["auto"] | Positive = "auto"
    address: str | None = None
    stall_seconds: Literal["auto"] | Positive = "auto"


class OutputConfig(_Section):
    """Where the run folder is and how maps are stored."""

    path: str
    maps: MapDtype = "u8"


class RunConfig(_Section):
    """A whole run file."""

    data: DataConfig
    model: ModelConfig
    explain: ExplainConfig = ExplainConfig()
    compute: ComputeConfig = ComputeConfig()
    output: OutputConfig


def load_config(path: str, settings: Sequence[str] = (), mistakes: Mistakes | None = None) -> RunConfig:
    """Read a run file and apply `KEY=VALUE` settings (dotted keys, YAML values) on top.

    Args:
        path: the run file.
        settings: `KEY=VALUE` texts.
        mistakes: takes what is wrong with keys and values, so that later checks can add to it; None raises at once.

    Raises:
        ConfigError: the file cannot be read or, without `mistakes`, anything in it is wrong.
    """
    raw = _read(path)
    found = Mistakes() if mistakes is None else mistakes
    for setting in settings:
        with found.collecting():
            _apply(raw, setting)
    config, wrong = parse_config(raw)
    found.found.extend(wrong)
    if mistakes is None:
        found.raise_if_any()
    return config


def parse_config(raw: dict[str, Any]) -> tuple[RunConfig, list[Mistake]]:
    """Validate a run file's content.

    Returns:
        The config and the mistakes. With mistakes the config is a stand-in in which wrong values are replaced by
        defaults and missing ones by empty strings, so that later checks can find their mistakes too.
    """
    mistakes: list[Mistake] = []
    raw = _copy(raw)
    while True:
        try:
            return RunConfig.model_validate(raw), list(dict.fromkeys(mistakes))
        except ValidationError as error:
            for problem in error.errors():
                mistakes.append(_mistake(problem))
                _mend(raw, tuple(problem["loc"]), missing=problem["type"] == "missing")


def _read(path: str) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError.one("CONFIG", f"cannot read '{path}': {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError.one("CONFIG", f"'{path}' is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError.one("CONFIG", f"'{path}' holds no sections", f"expected {', '.join(RunConfig.model_fields)}")
    return raw


def _apply(raw: dict[str, Any], setting: str) -> None:
    key, found, text = setting.partition("=")
    if not found or not key:
        raise ConfigError.one("--set", f"'{setting}' is not KEY=VALUE", "for example explain.seed=1")
    *folders, last = key.split(".")
    section: Any = raw
    for name in folders:
        section = section.setdefault(name, {}) if isinstance(section, dict) else None
    if not isinstance(section, dict):
        raise ConfigError.one("--set", f"'{key}' does not name a setting")
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError.one("--set", f"'{text}' is not a YAML value") from None


def _mistake(problem: Any) -> Mistake:  # noqa: ANN401 - pydantic's ErrorDetails
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return Mistake(where, "unknown key", nearest(str(problem["loc"][-1]), _siblings(problem["loc"])))
    if problem["type"] == "missing":
        return Mistake(where, "is required")
    return Mistake(where, f"{problem['msg']}, got {problem['input']!r}")


def _siblings(location: tuple[Any, ...]) -> list[str]:
    """Known keys at the level of an unknown one."""
    section: type[BaseModel] = RunConfig
    for name in location[:-1]:
        if name in section.model_fields:  # pydantic also puts the names of union members into the location
            annotation = section.model_fields[name].annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            section = next((kind for kind in kinds if issubclass(kind, BaseModel)), section)
    return list(section.model_fields)


def _mend(raw: Any, location: tuple[Any, ...], *, missing: bool) -> None:  # noqa: ANN401 - any YAML
    """Take a wrong value out of the raw config, or put an empty one where it is missing."""
    section = raw
    for depth, name in enumerate(location[:-1]):
        inner = section.get(name) if isinstance(section, dict) else None
        if not isinstance(inner, dict):
            if isinstance(section, dict) and missing and depth == len(location) - 2:
                inner = section[name] = {}
            else:
                _drop(section, name)
                return
        section = inner
    if missing:
        section[location[-1]] = {} if len(location) == 1 else ""
    else:
        _drop(section, location[-1])


def _drop(section: Any, name: Any) -> None:  # noqa: ANN401 - any YAML
    if isinstance(section, dict):
        section.pop(name, None)


def _copy(value: Any) -> Any:  # noqa: ANN401 - any YAML
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value
