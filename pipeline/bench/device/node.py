"""Projects from measured costs how many images a second the host side of a node feeds to each of its GPUs."""

from dataclasses import dataclass
from typing import Any

from pipeline.bench.device.host import HostCosts

GOAL = 10_000
"""Images a second and GPU, for Grad-CAM."""


@dataclass(frozen=True)
class Node:
    """A machine that nobody has measured.

    Attributes:
        gpus, cores: their numbers.
        images: in one pass.
        busy: cores of each worker: one launches, and one publishes.
        driver: cores of the driver and of Ray.
    """

    gpus: int = 8
    cores: int = 128
    images: int = 256
    busy: int = 2
    driver: int = 2

    @property
    def readers(self) -> float:
        """Return the cores that read and decode for each GPU."""
        return (self.cores - self.driver) / self.gpus - self.busy


@dataclass(frozen=True)
class Step:
    """A step that feeds a GPU: the images a second that it passes on at most."""

    name: str
    rate: float


@dataclass(frozen=True)
class Projection:
    """Rates of a node that was not measured."""

    node: Node
    costs: HostCosts
    goal: int = GOAL

    @property
    def steps(self) -> tuple[Step, ...]:
        """Return the steps that run at the same time; the slowest decides."""
        launching = self._launching
        return (
            Step(f"{self.node.readers:.4g} cores that decode", self.node.readers / self.costs.decoding),
            Step("the thread that launches and makes rows", 1 / launching),
            Step("the thread that publishes", 1 / self.costs.publishing),
            Step("both threads, if one lock held all of their work", 1 / (launching + self.costs.publishing)),
        )

    @property
    def _launching(self) -> float:
        costs = self.costs
        return costs.pass_launching / self.node.images + costs.unpacking + costs.copying + costs.rows

    @property
    def slowest(self) -> Step:
        """Return the step that holds the others up."""
        return min(self.steps, key=lambda step: step.rate)

    @property
    def cores_needed(self) -> float:
        """Return the cores for each GPU that would decode as many images as the goal asks for."""
        return self.goal * self.costs.decoding

    @property
    def sentence(self) -> str:
        """Say whether the goal is reached, or how far it is and what holds it."""
        share, slowest = self.slowest.rate / self.goal, self.slowest
        if share >= 1:
            return f"Projection, not a measurement: the host side feeds {slowest.rate:,.0f} images a second and GPU."
        return (
            f"Projection, not a measurement: the host side feeds {slowest.rate:,.0f} images a second and GPU, "
            f"{share:.0%} of {self.goal:,}. What holds it: {slowest.name}. Decoding {self.goal:,} images a second "
            f"takes {self.cores_needed:.3g} cores for each GPU, and {self.node.readers:.4g} are there."
        )

    def as_json(self) -> dict[str, Any]:
        """Return all figures."""
        return {
            "is_projection": True,
            "gpus": self.node.gpus,
            "cores": self.node.cores,
            "goal": self.goal,
            "costs_in_microseconds": {name: 1e6 * seconds for name, seconds in vars(self.costs).items()},
            "images_per_second_and_gpu": {step.name: step.rate for step in self.steps},
            "held_by": self.slowest.name,
            "reached": self.slowest.rate >= self.goal,
            "sentence": self.sentence,
        }
