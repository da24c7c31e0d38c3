"""Builds the manifest of a run: what determines its rows, and what readers of the run must know."""

import datetime
from collections.abc import Mapping
from typing import Any

from pipeline.cams import CamMethod
from pipeline.cams.base import Draws
from pipeline.data.inputs import data_identity
from pipeline.data.limits import DecodeLimits
from pipeline.data.sources import Reading, Shard
from pipeline.metrics import Metric
from pipeline.model import noise
from pipeline.model.zoo import LoadedModel
from pipeline.run.others import packages_of
from pipeline.run.provenance import code_facts, code_version, package_versions
from pipeline.settings.registry import parameters
from pipeline.settings.run_file import RunConfig
from pipeline.settings.targets import TargetRules
from schemas.explanation import SCHEMA_VERSION
from schemas.manifest import RunIdentity, RunManifest, ShardEntry


def manifest_of(
    config: RunConfig,
    shards: list[Shard],
    reading: Reading,
    limits: DecodeLimits,
    loaded: LoadedModel,
    methods: Mapping[str, CamMethod],
    metrics: Mapping[str, Metric],
) -> RunManifest:
    """Build the manifest of a run that has passed its checks."""
    identity = RunIdentity(
        code_version=code_version(),
        schema_version=SCHEMA_VERSION,
        shards=tuple(
            ShardEntry(name=s.name, kind=s.kind, size=s.size, fingerprint=s.fingerprint, take=s.take) for s in shards
        ),
        chunk_images=config.data.chunk_images,
        data=data_identity(config.data, shards, reading, limits) | {"preprocess": loaded.preprocess.identity()},
        model={
            "name": config.model.name,
            "weights_sha256": loaded.weights_digest,
            "layer": loaded.layer,
            "stages": loaded.stages,
            **loaded.identity,
            **loaded.outputs.identity(),
            **({} if config.model.layout == "auto" else config.model.model_dump(mode="json", include={"layout"})),
            **({"arguments": config.model.arguments} if config.model.arguments else {}),
        },
        targets=str(TargetRules.of(config.explain.targets)),
        methods={label: _identity_of(method) for label, method in methods.items()},
        metrics={label: _identity_of(metric) for label, metric in metrics.items()},
        seed=config.explain.seed,
        precision=config.compute.precision,
        maps=config.output.maps,
    )
    return RunManifest(
        identity=identity,
        locations=tuple(shard.location for shard in shards),
        images=tuple(shard.images for shard in shards),
        config=config.model_dump(mode="json"),
        packages=package_versions(packages_of(methods)),
        code=code_facts(),
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _identity_of(thing: CamMethod | Metric) -> dict[str, Any]:
    """Return the parameters of a method or metric and, if it draws random numbers, where they come from."""
    drawn = {"noise": noise.VERSION} if isinstance(thing, Draws) and thing.draws else {}
    return parameters(thing) | drawn
