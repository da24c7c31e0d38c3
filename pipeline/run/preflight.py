"""Checks a run before any work starts, reports all mistakes at once, and prepares the run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.cams import CamMethod, Cost, LayerShape, NetShape, build_methods
from pipeline.data.account import LabelAccount
from pipeline.data.annotations import classes_of, describe
from pipeline.data.box_check import check_boxes
from pipeline.data.class_counts import with_counts
from pipeline.data.inputs import framing_of, reading_of
from pipeline.data.limits import DecodeLimits
from pipeline.data.selection import select, with_notes
from pipeline.data.sources import Reading, Shard
from pipeline.data.sources.parquet_sandbox import parquet_sandbox
from pipeline.errors import Mistakes
from pipeline.explain.explainer import BATCH_MULTIPLE, ExplainerSpec
from pipeline.explain.plugin_trial import try_plugins
from pipeline.explain.requirements import check_outputs, check_stages
from pipeline.metrics import Metric, build_metrics, reads_parts
from pipeline.metrics.cost import metrics_cost
from pipeline.model.baselines import Normalisation
from pipeline.model.zoo import LoadedModel, load_model
from pipeline.run.identity import manifest_of
from pipeline.run.matching import (
    check_account,
    check_classes,
    check_first_labels,
    check_heads,
    check_labels,
    check_names,
    names_of,
    with_attention,
    wrong_parts,
)
from pipeline.run.others import check_others, check_stored_keys, notes_of
from pipeline.run.surroundings import check_device, decoding_here
from pipeline.run.survey import Survey, survey
from pipeline.settings.run_file import RunConfig
from pipeline.settings.targets import TargetRules
from pipeline.storage.base import Store
from pipeline.storage.ownership import check_ownership
from pipeline.storage.parts import Progress
from schemas.manifest import RunManifest

LARGEST_BATCH = 128
"""Images in a batch, as assumed for the default of `compute.stall_seconds`."""
COMPILE_FROM = {"cpu": 50_000, "cuda": 2_000_000}
"""Masked passes of one worker, in images, above which compiling pays for itself many times over."""
TRY_BATCHES_FROM = 2_000
"""Passes of one worker, in images, above which it pays to try which size of a pass is the fastest."""
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
            batch=self._batch(workers),
            size=preprocess.size,
            passes=self._costs().forwards * TargetRules.of(self.config.explain.targets).most,
            compiled=self.compiled(device, workers),
            has_metadata=bool(self.config.data.metadata),
            weights=self.loaded.weights_digest,
        )

    def _batch(self, workers: int) -> int | None:
        """Return the most images in a pass: as requested, or None where a worker chooses it in a trial.

        The trial runs some hundred images. A worker that passes hardly more in the whole run takes the smallest size;
        the rows are the same with any.
        """
        requested = self.config.compute.batch
        if requested != "auto":
            return requested
        targets = TargetRules.of(self.config.explain.targets).most
        passes = self._images() * (1 + self._costs().forwards * targets)
        return BATCH_MULTIPLE if passes < TRY_BATCHES_FROM * workers else None

    def _images(self) -> int:
        """Return the number of images of the run, estimated from sizes where it is not known."""
        return sum(shard.images or shard.size // _BYTES_OF_AN_IMAGE for shard in self.shards)

    def compiled(self, device: str, workers: int) -> bool:
        """Tell whether masked passes are compiled: as requested, or where a worker will run very many of them."""
        requested = self.config.compute.compile
        if requested != "auto":
            return requested
        return self._images() * self._costs().forwards > COMPILE_FROM[device] * workers

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


@parquet_sandbox()  # all steps share one subprocess
def prepare(config: RunConfig, mistakes: Mistakes | None = None, surveyed: Survey | None = None) -> PreparedRun:
    """Check a whole run and prepare it; nothing is written.

    Args:
        config: the run file; after earlier mistakes it may hold empty stand-ins, which are not checked.
        mistakes: the mistakes found earlier.
        surveyed: what a survey found, whose mistakes are among `mistakes`; None makes one.

    Raises:
        ConfigError: every mistake in shards, annotations, model, layer, methods, metrics and output, at once.
    """
    found = mistakes or Mistakes()
    seen = surveyed or survey(config, found)
    shards = list(seen.shards)
    with found.collecting():
        check_device(config.compute)
    decoding = tuple[str, ...]()
    with found.collecting():
        config, decoding = decoding_here(config)
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
            framing = framing_of(config.data, loaded.preprocess)
            loaded = replace(loaded, preprocess=framing, notes=(*loaded.notes, *decoding))
            names = loaded.class_names or ()
            outputs = loaded.classes if loaded.outputs.has_confidences else None
    rules = TargetRules.of(config.explain.targets)
    with found.collecting():
        parts = any(map(reads_parts, metrics.values()))
        described = describe(config.data, shards, outputs, rules, parts=parts, of_model=names)
    found.raise_if_any()
    limits, store = seen.checked()
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
        noted = check_first_labels(described.account, loaded)
        loaded = replace(loaded, notes=(*loaded.notes, *noted))
    with found.collecting():
        methods = try_plugins(loaded, net_shape(loaded), methods, metrics, config.explain.seed)
    found.raise_if_any()
    reading = reading_of(config.data, described.annotations)
    with found.collecting():
        check_boxes(shards, reading, limits, loaded.preprocess, config.data.boxes_format)
    shards, reading = select(config.data, shards, reading, seen.keys)
    with found.collecting():
        check_stored_keys(methods, shards, reading)
    account = with_notes(with_counts(described, shards), reading)
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
