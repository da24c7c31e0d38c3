"""What a user writes: `make check` finds its types right, and the two mistakes at its end."""

import torch
from torch import nn

import camatlas


def strongest(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    explanations: camatlas.Explanations = camatlas.explain(
        model, pixels, methods=["gradcam", {"iscam": {"num_steps": 4}}], layer="auto"
    )
    heatmap: torch.Tensor = explanations.heatmap("gradcam", size=(224, 224))
    drops = camatlas.evaluate(model, pixels, explanations, metrics=["average_drop"])
    print(drops["average_drop"]["gradcam"].mean())
    return heatmap.flatten(1).argmax(1)


try:
    with camatlas.open_run("my_run") as run:
        print(run.sql("SELECT count(*) AS images FROM images"), run.maps("method = 'gradcam'").mean(0))
except camatlas.CamatlasError as error:
    print(error)


def mistaken() -> None:
    """Use what is not there; without types, mypy would report these comments as unused."""
    camatlas.open_run(7)  # type: ignore[arg-type]
    camatlas.explian  # type: ignore[attr-defined]  # noqa: B018
