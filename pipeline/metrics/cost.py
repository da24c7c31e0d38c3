"""What metrics cost beside the methods, in passes per row (image, target)."""

from collections.abc import Iterable, Mapping

from pipeline.cams.base import CamMethod, Cost, NetShape
from pipeline.metrics.base import Metric, Redrawn


def metrics_cost(metrics: Iterable[Metric], methods: Mapping[str, CamMethod], net: NetShape) -> Cost:
    """Count the passes of metrics on the maps of some methods; what several metrics read is counted once.

    Images seen by all targets alike are counted for each of them, so with several targets this is a bound.
    """
    metrics = list(metrics)
    views = {view for metric in metrics for view in metric.views()}
    redrawn_maps = {rerun for metric in metrics for rerun in metric.redrawn_maps()}
    requested = sum(view.count() * (len(methods) if view.scope == "map" else 1) for view in views)
    again = [_rerun_cost(rerun, list(methods.values()), net) for rerun in redrawn_maps]
    return Cost(
        forwards=requested + sum(cost.forwards for cost in again),
        head_passes=sum(cost.head_passes for cost in again),
        backwards=sum(cost.backwards for cost in again),
    )


def _rerun_cost(rerun: Redrawn, methods: list[CamMethod], net: NetShape) -> Cost:
    """Drawing all maps again: the clean pass of the changed images, and what the methods cost on them."""
    groups = [methods] if rerun.shared else [[method] for method in methods]
    own = [method.cost(net) for method in methods]
    return Cost(
        forwards=rerun.times * (len(groups) + sum(cost.forwards for cost in own)),
        head_passes=rerun.times * sum(cost.head_passes for cost in own),
        backwards=rerun.times
        * (sum(any(m.needs.gradients for m in group) for group in groups) + sum(cost.backwards for cost in own)),
    )
