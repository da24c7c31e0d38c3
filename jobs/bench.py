"""camatlas bench: speed as ratios, ours and the peers' against the plain model, side by side in one run."""

from typing import Annotated

import typer

from jobs.console import command, err, out
from jobs.methods import print_rows
from pipeline.config import ModelConfig, load_config
from pipeline.errors import ConfigError, nearest


@command
def bench(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="a run file; its model is timed")] = None,
    against: Annotated[str, typer.Option(help="peers to time beside: names with commas")] = "",
    batch: Annotated[int, typer.Option(min=1, help="images in one pass")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="rounds; the median is told")] = 5,
) -> int:
    """Time the methods in forward passes of the plain model; without a run file, ResNet-18 with random weights."""
    import torch

    from pipeline.benchmark import PEERS, make_cases, time_cases
    from pipeline.model.zoo import load_model

    peers = [name for name in against.split(",") if name]
    if unknown := [name for name in peers if name not in PEERS]:
        raise ConfigError.one("--against", f"unknown peer '{unknown[0]}'", nearest(unknown[0], PEERS))
    settings = load_config(config).model if config else ModelConfig(name="torchvision/resnet18", weights="random")
    loaded = load_model(settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = loaded.preprocess.crop
    pixels_BCHW = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    where = torch.cuda.get_device_name(0) if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    err.print(f"{settings.name}, layer {loaded.layer}, {side} px, batch {batch}, {where}, torch {torch.__version__}")
    try:
        cases = make_cases(loaded.model.to(device), loaded.layer, pixels_BCHW, peers)
    except ImportError as error:
        raise ConfigError.one("--against", f"a peer is not installed: {error}", "pip install 'camatlas[dev]'") from None
    print_rows(
        [
            {
                "case": timing.case.name,
                "by": timing.case.by,
                "images/s": f"{timing.images_per_second:.3g}",
                "time of one image in plain forwards": f"{timing.forwards_each:.4g}",
                "forwards/s against plain": f"{timing.efficiency:.2f}" if timing.case.forwards else "",
            }
            for timing in time_cases(cases, rounds, err.say)
        ]
    )
    out.print("\nMedians of rounds in which every case ran in turn; compare columns within one run only.")
    return 0


if __name__ == "__main__":
    typer.run(bench)
