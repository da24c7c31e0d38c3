"""camatlas metrics: list the metrics, or print the page of one."""

from typing import Annotated

import typer

from jobs.methods import print_facts, print_plugin, print_plugins, print_rows
from jobs.support.answers import AsJson
from jobs.support.console import command, leave_after, out


@command
def metrics(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="print its page; yours: package.module:Class"),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List the metrics with their paper, unit and direction; with a name, print its page."""
    if as_json:
        from pipeline.results.catalogue_facts import metric_facts

        return print_facts(metric_facts(), name, "metric")
    from pipeline.metrics import METRIC_PLUGINS, METRICS
    from pipeline.results.catalogue import metric_page, metric_rows

    if name is None:
        print_rows(metric_rows())
        out.print(
            "\nForwards: forward passes in addition to those of the methods. Metrics that score the same images share "
            "them. Ranks methods: whether a metric can carry a conclusion about methods, and the shares of pairs of "
            "methods that it orders as exact truth does, by mass and by rank; see docs/metrics.md."
        )
        print_plugins(METRIC_PLUGINS, METRICS)
    elif name in METRICS:
        out.print(metric_page(METRICS[name]))
    else:
        print_plugin(name, METRIC_PLUGINS, METRICS)
    return 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(metrics))
