"""Images to time methods on: realistic ones, because on noise many channels of a network are dead.

Legend: B images, C colours, (H, W) pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.data.annotations import read_annotations
from pipeline.data.framing import PixelArray, resized
from pipeline.data.inputs import decode_limits, reading_of, shards_of
from pipeline.demo.scenes import make_scene
from pipeline.errors import ConfigError
from pipeline.model.baselines import Normalisation, unit_pixels
from pipeline.planning.sampling import take_sample
from pipeline.settings.preprocess import Preprocess
from pipeline.settings.run_file import RunConfig


def bench_images(
    config: RunConfig | None, preprocess: Preprocess, count: int, class_names: Sequence[str] = ()
) -> Tensor:
    """Return normalised images (B, C, H, W): of a run file's data, or of drawn scenes when there is no run file.

    Args:
        config: the run file, if there is one.
        preprocess: how images become inputs of the model.
        count: number of images.
        class_names: the names that the model gives to its classes.

    Raises:
        ConfigError: the data has no image that can be decoded.
    """
    sample_NHWC = _scenes(preprocess, count) if config is None else _sampled(config, preprocess, count, class_names)
    pixels_BHWC = torch.tensor(sample_NHWC[np.arange(count) % len(sample_NHWC)])
    return Normalisation(preprocess.mean, preprocess.std).apply(unit_pixels(pixels_BHWC))


def _scenes(preprocess: Preprocess, count: int) -> PixelArray:
    """Draw scenes; their colours are repeated over the channels of a model of other than three channels."""
    scenes_NHW3 = np.stack([np.asarray(resized(make_scene(index).image, preprocess)[0]) for index in range(count)])
    return scenes_NHW3[..., np.arange(preprocess.channels) % scenes_NHW3.shape[-1]]


def _sampled(config: RunConfig, preprocess: Preprocess, count: int, class_names: Sequence[str]) -> PixelArray:
    shards = shards_of(config.data)
    annotations = read_annotations(config, shards, class_names)
    reading = reading_of(config.data, annotations)
    pixels_NHWC = take_sample(shards, reading, preprocess, decode_limits(config), count).chunk.pixels_NHWC
    if not len(pixels_NHWC):
        raise ConfigError.one("data.shards", "none of the images in the sample can be decoded")
    return pixels_NHWC
