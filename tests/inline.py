"""Explains a run file in this process: the steps of a run, shard by shard, without Ray."""

from pathlib import Path
from typing import Any

from jobs.explain import Ended
from jobs.explain import run as run_with_ray
from pipeline.explain.explainer import Explainer
from pipeline.run.ledger import Ledger
from pipeline.run.loading import ReadPlan
from pipeline.run.paths import absolute
from pipeline.run.preflight import prepare
from pipeline.run.worker import Worker
from pipeline.settings.run_file import RunConfig, parse_config
from pipeline.storage.ownership import take_ownership


def config_of(fields: dict[str, Any]) -> RunConfig:
    """Return the settings of a run file without mistakes."""
    config, mistakes = parse_config(fields)
    assert not mistakes
    return config


def publish_all(fields: dict[str, Any]) -> Path:
    """Explain all images, and publish the parts; return the run folder."""
    config = config_of(fields)
    run = prepare(absolute(config))
    take_ownership(run.store, run.manifest)
    explainer = Explainer(run.loaded.model, run.explainer_spec("cpu", workers=1))
    worker = Worker(explainer.tables, run.manifest.run_id, run.store.url, Ledger())
    plan = ReadPlan.of(run, unit_bytes=0)
    for shard in run.shards:
        for unit in plan.work_units(shard):
            for _ in worker.process(unit):
                pass
    return Path(config.output.path)


def explain_inline(fields: dict[str, Any]) -> Ended:
    """Explain all images in this process, and let `camatlas explain` find that nothing is left to do."""
    publish_all(fields)
    return run_with_ray(config_of(fields))
