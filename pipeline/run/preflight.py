"""Checks a run before any work starts, reports all mistakes at once, and prepares the run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cams import CamMethod, Cost, LayerShape, NetShape, build_methods
from pipeline.data.account import LabelAccount
from pipeline.data.annotations import classes_of, describe
from pipeline.data.box_check import check_boxes
from pipeline.data.class_counts import with_counts
from pipeline.data.inputs import decode_limits, reading_of, shards_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.selection import select
from pipeline.data.sources import Reading, Shard
from pipeline.errors import Mistakes
from pipeline.explain.explainer import ExplainerSpec
from pipeline.explain.plugin_trial import try_plugins
from pipeline.explain.requirements import check_outputs, check_stages
from pipeline.metrics import Metric, build_metrics, reads_parts
from pipeline.metrics.cost import metrics_cost
from pipeline.model.baselines import Normalisation
from pipeline.model.transformers_source import PREFIX, local_folder
from pipeline.model.zoo import LoadedModel, load_model
from pipeline.run.identity import manifest_of
from pipeline.run.matching import (
    check_account,
    check_classes,
    check_heads,
    check_labels,
    check_names,
    names_of,
    with_attention,
    wrong_parts,
)
from pipeline.run.others import absolute_methods, check_others, check_stored_keys, notes_of
from pipeline.run.surroundings import check_device, check_output, check_working_folder
from pipeline.settings.model import ModelConfig
from pipeline.settings.run_file import RunConfig
from pipeline.settings.targets import TargetRules
from pipeline.storage.base import Store
from pipeline.storage.ownership import check_ownership
from pipeline.storage.parts import Progress
from pipeline.storage.store import open_store
from schemas.manifest import RunManifest

LARGEST_BATCH = 128
"""Images in a batch, as assumed for the default of `compute.stall_seconds`."""
COMPILE_FROM = {"cpu": 50_000, "cuda": 2_000_000}
"""Masked passes of one worker, in images, above which compiling pays for itself many times over."""
_BYTES_OF_AN_IMAGE = 100_000


@dataclass(frozen=True)
class PreparedRun:
    """A run that passed every check that is possible before it starts."""

    config: RunConfig
    shards: tuple[Shard, ...]
    reading: Reading
    limits: DecodeLimits
    loaded: LoadedModel
    methods: Mapping[str, CamMethod]
    metrics: Mapping[str, Metric]
    store: Store
    manifest: RunManifest
    account: LabelAccount

    def explainer_spec(self, device: str, workers: int) -> ExplainerSpec:
        """Build the settings that a worker of this run needs besides the model."""
        preprocess = self.loaded.preprocess
        batch = self.config.compute.batch
        return ExplainerSpec(
            layer=self.loaded.layer,
            stages=self.loaded.stages,
            methods=self.methods,
            metrics=self.metrics,
            normalisation=Normalisation(preprocess.mean, preprocess.std),
            classes=self.loaded.classes,
            outputs=self.loaded.outputs,
            layouts=self.loaded.layouts,
            targets=TargetRules.of(self.config.explain.targets),
            seed=self.config.explain.seed,
            precision=self.config.compute.precision,
            maps=self.config.output.maps,
            device=device,
            batch=None if batch == "auto" else batch,
            size=preprocess.size,
            passes=self._costs().forwards * TargetRules.of(self.config.explain.targets).most,
            compiled=self.compiled(device, workers),
            has_metadata=bool(self.config.data.metadata),
            weights=self.loaded.weights_digest,
        )

    def compiled(self, device: str, workers: int) -> bool:
        """Tell whether masked passes are compiled: as requested, or where a worker will run very many of them."""
        requested = self.config.compute.compile
        if requested != "auto":
            return requested
        images = sum(shard.images or shard.size // _BYTES_OF_AN_IMAGE for shard in self.shards)
        return images * self._costs().forwards > COMPILE_FROM[device] * workers

    def _costs(self) -> Cost:
        """Add up the passes of all methods and metrics, per image."""
        shape = net_shape(self.loaded)
        costs = [method.cost(shape) for method in self.methods.values()]
        costs.append(metrics_cost(self.metrics.values(), self.methods, shape))
        return Cost(
            sum(cost.forwards for cost in costs),
            sum(cost.head_passes for cost in costs),
            sum(cost.backwards for cost in costs),
        )

    def notes(self) -> tuple[str, ...]:
        """Return what the user should know about the model and the methods, one sentence each."""
        return (*self.loaded.notes, *notes_of(self.methods))

    def images_left(self, progress: Progress) -> int | None:
        """Count the images that are not done yet; None when the size of a shard is not known without reading it."""
        counts = [shard.images for shard in self.pending(progress)]
        if None in counts:
            return None
        done = sum(len(progress.done.get(shard.ordinal, ())) for shard in self.pending(progress))
        return max(0, sum(count or 0 for count in counts) - done * self.config.data.chunk_images)

    def bytes_left(self, progress: Progress) -> int:
        """Add up the bytes of the shards that are not done yet."""
        return sum(shard.bytes for shard in self.pending(progress))

    def pending(self, progress: Progress) -> list[Shard]:
        """List the shards that are not finished yet."""
        return [shard for shard in self.shards if shard.ordinal not in progress.finished]

    def stall_seconds(self) -> int:
        """Return the longest time without progress; by default 0.5 s per pass of a batch, at least 600 s."""
        requested = self.config.compute.stall_seconds
        if requested != "auto":
            return requested
        costs = self._costs()
        passes = costs.forwards + costs.head_passes + costs.backwards
        targets = TargetRules.of(self.config.explain.targets).most
        return max(600, passes * targets * LARGEST_BATCH // 2)


def net_shape(loaded: LoadedModel) -> NetShape:
    """Return the shapes that the cost of a method depends on."""
    stages = tuple(LayerShape(*shape) for shape in loaded.stage_shapes)
    attention = loaded.layouts.attention
    return NetShape(stages, loaded.linear_head, loaded.preprocess.size, 0 if attention is None else attention.layers)


def prepare(config: RunConfig, mistakes: Mistakes | None = None) -> PreparedRun:
    """Check a whole run and prepare it; nothing is written.

    Args:
        config: the run file; after earlier mistakes it may hold empty stand-ins, which are not checked.
        mistakes: the mistakes found earlier.

    Raises:
        ConfigError: every mistake in shards, annotations, model, layer, methods, metrics and output, at once.
    """
    found = mistakes or Mistakes()
    with found.collecting():
        check_working_folder()
    with found.collecting():
        check_device(config.compute)
    shards: list[Shard] = []
    with found.collecting():
        shards = shards_of(config.data)
    with found.collecting():
        limits = decode_limits(config)
    with found.collecting():
        methods = build_methods(config.explain.methods)
    metrics: dict[str, Metric] = {}
    with found.collecting():
        metrics = build_metrics(config.explain.metrics)
    outputs: int | None = None
    names = tuple[str, ...]()
    if config.model.name:
        with found.collecting():
            loaded = load_model(config.model, names_for(config))
            names = loaded.class_names or ()
            outputs = loaded.classes if loaded.outputs.has_confidences else None
    rules = TargetRules.of(config.explain.targets)
    with found.collecting():
        parts = any(map(reads_parts, metrics.values()))
        described = describe(config.data, shards, outputs, rules, parts=parts, of_model=names)
    if config.output.path:
        with found.collecting():
            check_output(config.output.path, config.data.shards or (), shards)
        with found.collecting():
            store = open_store(config.output.path)
            store.check_writable()
    found.raise_if_any()
    with found.collecting():
        rules.check(loaded.classes)
    with found.collecting():
        check_heads(methods, loaded)
    with found.collecting():
        loaded = with_attention(methods, loaded)
    with found.collecting():
        check_stages(methods, loaded.stages)
    with found.collecting():
        check_outputs(loaded.outputs, loaded.classes, methods, metrics, config.explain.targets)
    with found.collecting():
        check_others(methods, metrics, loaded)
    with found.collecting():
        check_classes(described.annotations, loaded)
    with found.collecting():
        check_names(described.class_names, loaded)
    with found.collecting():
        check_labels(described.annotations, loaded, shards)
    with found.collecting():
        methods = try_plugins(loaded, net_shape(loaded), methods, metrics, config.explain.seed)
    found.raise_if_any()
    reading = reading_of(config.data, described.annotations)
    with found.collecting():
        check_boxes(shards, reading, limits, loaded.preprocess, config.data.boxes_format)
    shards, reading = select(config.data, shards, reading)
    with found.collecting():
        check_stored_keys(methods, shards, reading)
    account = with_counts(described, shards)
    check_account(account, config, metrics, found)
    found.found.extend(wrong_parts(account, config.data, metrics, loaded.weights_digest))
    found.raise_if_any()
    manifest = manifest_of(config, shards, reading, limits, loaded, methods, metrics)
    names = names_of(described.class_names, loaded)
    manifest = manifest.model_copy(update={"classes": names, "account": account.to_json()})
    check_ownership(store, manifest)
    return PreparedRun(config, tuple(shards), reading, limits, loaded, methods, metrics, store, manifest, account)


def names_for(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the run's classes where the order of named embeddings depends on them."""
    named = config.model.text_embeddings or config.model.reference_embeddings
    return classes_of(config.data).names if named else ()


def absolute(config: RunConfig) -> RunConfig:
    """Make local paths absolute: workers and later readers of the run have other working directories."""
    data = config.data
    shards = [data.shards] if isinstance(data.shards, str) else data.shards
    methods = absolute_methods(config.explain.methods, _absolute)
    return config.model_copy(
        update={
            "data": data.model_copy(
                update={
                    "shards": [_absolute(shard) for shard in shards] if data.shards else "",
                    "manifest": data.manifest and _absolute(data.manifest),
                    "root": data.root and _absolute(data.root),
                    "labels": data.labels and _absolute(data.labels),
                    "boxes": data.boxes and _absolute(data.boxes),
                    "classes": data.classes and _absolute(data.classes, "imagenet-1k"),
                }
            ),
            "explain": config.explain.model_copy(update={"methods": methods}),
            "model": config.model.model_copy(update=_absolute_files(config.model)),
            "output": config.output.model_copy(update={"path": _absolute(config.output.path)}),
        }
    )


def _absolute(path: str, name: str = "") -> str:
    """Make a path absolute; leave a URL and the built-in name `name` unchanged."""
    return path if "://" in path or path in ("", name) else os.path.abspath(Path(path).expanduser())  # noqa: PTH100


def _absolute_files(model: ModelConfig) -> dict[str, str | None]:
    """Make the paths of a model's files absolute; names of weights, which have no dot, stay as they are."""
    named = bool(model.weights and "." not in model.weights)
    return {
        "name": _absolute_model(model.name),
        "weights": model.weights if named else model.weights and _absolute(model.weights),
        "text_embeddings": model.text_embeddings and _absolute(model.text_embeddings),
        "reference_embeddings": model.reference_embeddings and _absolute(model.reference_embeddings),
    }


def _absolute_model(name: str) -> str:
    """Make the path of a folder of transformers absolute; other names stay as they are."""
    folder = local_folder(name)
    return name if folder is None else f"{PREFIX}{folder}"
