"""Base class of metrics of users."""

from typing import ClassVar

from pipeline.metrics.base import ReadsMap


class Metric(ReadsMap):
    """Base of a metric of a user's: a frozen dataclass with `better` and `__call__`; the defaults suit one of maps.

    A metric that scores changed images returns them from `views`, and says in `reads` whether it reads confidences.
    """

    unit: ClassVar[str] = ""
