"""Images to time methods on: realistic ones, because on noise many channels of a network are dead.

Legend: B images, C colours, (H, W) pixels.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.data.annotations import read_annotations
from pipeline.data.decode import PixelArray
from pipeline.data.framing import resized
from pipeline.data.sources import Reading
from pipeline.data.sources.listing import list_shards
from pipeline.demo.scenes import make_scene
from pipeline.errors import ConfigError
from pipeline.model.baselines import Normalisation
from pipeline.planning.sampling import take_sample
from pipeline.run.preflight import decode_limits
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig


def bench_images(config: RunConfig | None, preprocess: Preprocess, count: int) -> Tensor:
    """Return normalised images (B, C, H, W): of a run file's data, or of drawn scenes when there is no run file.

    Raises:
        ConfigError: the data has no image that can be decoded.
    """
    sample_NHWC = _scenes(preprocess, count) if config is None else _sampled(config, preprocess, count)
    pixels_BHWC = torch.tensor(sample_NHWC[np.arange(count) % len(sample_NHWC)])
    return Normalisation(preprocess.mean, preprocess.std).apply(pixels_BHWC.permute(0, 3, 1, 2).float().div(255))


def _scenes(preprocess: Preprocess, count: int) -> PixelArray:
    return np.stack([np.asarray(resized(make_scene(index).image, preprocess)[0]) for index in range(count)])


def _sampled(config: RunConfig, preprocess: Preprocess, count: int) -> PixelArray:
    shards = list_shards(config.data.shards)
    reading = Reading(read_annotations(config, shards), config.data.columns.model_dump())
    pixels_NHWC = take_sample(shards, reading, preprocess, decode_limits(config), count).chunk.pixels_NHWC
    if not len(pixels_NHWC):
        raise ConfigError.one("data.shards", "none of the images in the sample can be decoded")
    return pixels_NHWC
