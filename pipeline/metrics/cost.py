"""Cost of metrics in addition to the methods, in passes per row (image, target)."""

from collections.abc import Iterable, Mapping

from pipeline.cams.base import CamMethod, Cost, NetShape
from pipeline.metrics.base import Metric, Redrawn


def metrics_cost(metrics: Iterable[Metric], methods: Mapping[str, CamMethod], net: NetShape) -> Cost:
    """Count the passes of metrics on the maps of the methods; passes shared by several metrics count once.

    Changed images shared by all targets of an image are counted for each target, so with several targets this is an
    upper bound.
    """
    metrics = list(metrics)
    views = {view for metric in metrics for view in metric.views()}
    redrawn_maps = {rerun for metric in metrics for rerun in metric.redrawn_maps()}
    requested = sum(view.count() * (len(methods) if view.scope == "map" else 1) for view in views)
    rerun_costs = [_rerun_cost(rerun, list(methods.values()), net) for rerun in redrawn_maps]
    return Cost(
        forwards=requested + sum(cost.forwards for cost in rerun_costs),
        head_passes=sum(cost.head_passes for cost in rerun_costs),
        backwards=sum(cost.backwards for cost in rerun_costs),
    )


def _rerun_cost(rerun: Redrawn, methods: list[CamMethod], net: NetShape) -> Cost:
    """Count the passes of computing maps again: the clean pass of the changed images and the methods' own passes."""
    groups = [methods] if rerun.shared else [[method] for method in methods]
    costs = [method.cost(net) for method in methods]
    return Cost(
        forwards=rerun.times * (len(groups) + sum(cost.forwards for cost in costs)),
        head_passes=rerun.times * sum(cost.head_passes for cost in costs),
        backwards=rerun.times
        * (sum(any(m.needs.gradients for m in group) for group in groups) + sum(cost.backwards for cost in costs)),
    )
