"""The record of `camatlas judge`: how well each metric agrees with exact truth on drawn scenes.

It holds measurements alone; what follows from them is derived when it is read (`pipeline/results/reliability.py`). None
stands for a number that does not exist, such as the agreement of a metric that is constant on all candidates.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

VERSION = 1

_ROUNDING = 1e-6
Share = Annotated[float, Field(ge=-_ROUNDING, le=1 + _ROUNDING)]
Correlation = Annotated[float, Field(ge=-1 - _ROUNDING, le=1 + _ROUNDING)]


class _Frozen(BaseModel):
    """Fields that a later record may add are ignored; a missing one is a mistake."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Agreement(_Frozen):
    """Kendall's tau-b with a truth: mean over scenes with its 95 % bootstrap interval."""

    tau: Correlation | None
    low: Correlation | None
    high: Correlation | None
    scenes: int


class Agreements(_Frozen):
    """Agreement with the two truths: `mass` (where the map stands) and `rank` (how it orders the parts)."""

    mass: Agreement | None
    rank: Agreement | None


class Candidates(_Frozen):
    """Agreement over the methods, and over the graded ruins of the truth; None where a metric does not apply."""

    methods: Agreements | None
    ruins: Agreements | None


class FreeGain(_Frozen):
    """A change of maps that adds no knowledge.

    Attributes:
        rewarded: share of scenes on which the metric prefers the changed map.
        gain: mean gain, in standard deviations of the metric over the methods.
    """

    rewarded: Share | None
    gain: float | None


class SizeEffect(_Frozen):
    """Spearman correlation of the metric with the area of random maps, with its interval."""

    rho: Correlation | None
    low: Correlation | None
    high: Correlation | None


class Repeatability(_Frozen):
    """How far scenes agree on the ranking of the methods.

    Attributes:
        alpha: Krippendorff's alpha.
        scenes_needed: number of scenes for an interval of the mean rank below half a place; None for never.
    """

    alpha: float | None
    scenes_needed: int | None


class MetricRecord(_Frozen):
    """What was measured on one metric.

    Attributes:
        params: the parameters it was judged with.
        needs: what it reads beside image and map.
        order: share of scenes on which the truth beats each ruin; ties count half.
        by_network: agreement over methods on each network alone.
    """

    better: Literal["higher", "lower", "neither"]
    params: dict[str, Any]
    needs: Literal["nothing", "boxes", "parts"]
    agreement: Candidates
    order: dict[str, Share | None]
    free_gains: dict[str, FreeGain | None]
    size: SizeEffect | None
    repeatability: Repeatability | None
    by_network: dict[str, Agreements | None]


class NetworkRecord(_Frozen):
    """One network that the scenes were shown to.

    Attributes:
        scenes: number of scenes that it classified rightly.
        accuracy: share of scenes that it classifies rightly.
        weights_sha256: digest of its weights.
        own_share: share of the positive value that lies on the parts of the class.
    """

    scenes: int
    accuracy: Share | None
    weights_sha256: str | None
    own_share: Share | None


class Score(_Frozen):
    """Mean of a truth over scenes with its 95 % interval."""

    mean: float | None
    low: float | None
    high: float | None


class MethodRecord(_Frozen):
    """How well a method finds the truth itself."""

    mass: Score | None
    rank: Score | None


class CandidateNames(_Frozen):
    """Names of the methods, of the ruins of the truth map, and of the changes that add no knowledge."""

    methods: list[str]
    ruins: list[str]
    changes: list[str]


class JudgedRecord(_Frozen):
    """The whole record."""

    version: Literal[1]
    seed: int
    versions: dict[str, str]
    networks: dict[str, NetworkRecord]
    rules: dict[str, int]
    candidates: CandidateNames
    metrics: dict[str, MetricRecord]
    methods: dict[str, MethodRecord]

    @property
    def scenes(self) -> int:
        """Return the number of scenes over all networks."""
        return sum(network.scenes for network in self.networks.values())

    @property
    def is_placeholder(self) -> bool:
        """Return whether the numbers are a first look, and not yet those of a full judgement."""
        return self.versions.get("placeholder") == "true"
