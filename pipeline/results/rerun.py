"""Loads the model and the images of a finished run again, for experiments that its rows alone do not allow.

Legend: B images, N classes, (H, W) pixels.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.maps.codec import FloatArray
from pipeline.maps.pictures import unit_range
from pipeline.model.arithmetic import multiplying
from pipeline.model.baselines import Normalisation
from pipeline.model.batching import DEFAULT_BATCH
from pipeline.model.zoo import LoadedModel, load_model
from pipeline.results.one_image import originals_of
from pipeline.results.output_kind import OutputKind
from pipeline.results.query import Run
from pipeline.results.run_images import run_config
from pipeline.results.source_images import Original

Indices = npt.NDArray[np.int64]


class RunModel:
    """The model of a run, loaded again, with its weights, target layer and outputs compared with the manifest.

    Raises:
        ConfigError: the model cannot be loaded, or differs from the run's model.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.config = run_config(run.manifest)
        embedded = self.config.model.text_embeddings or self.config.model.reference_embeddings
        self.loaded: LoadedModel = load_model(self.config.model, run.manifest.classes if embedded else ())
        identity = run.manifest.identity.model
        own = {"weights_sha256": self.loaded.weights_digest, "layer": self.loaded.layer, **self.loaded.identity}
        if any(identity.get(key) != value for key, value in own.items()):
            name = self.config.model.name
            raise ConfigError.one(
                "RUN", f"the weights or the target layer of {name} are not those of the run", "restore them"
            )
        if self.loaded.outputs.kind != OutputKind.of(run.manifest).kind:
            raise ConfigError.one(
                "RUN",
                f"the outputs of {self.config.model.name} are {self.loaded.outputs.kind} now, "
                f"but the run read them as {OutputKind.of(run.manifest).kind}",
                "restore the model",
            )
        self.normalisation = Normalisation(self.loaded.preprocess.mean, self.loaded.preprocess.std)
        self.device = "cuda" if self.config.compute.device != "cpu" and torch.cuda.is_available() else "cpu"
        self.model: nn.Module = self.loaded.model.to(self.device)

    def pictures(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Original]:
        """Read images by (shard, image key), preprocessed for the model; missing images are left out."""
        return dict(originals_of(self.run, wanted))

    def confidences(self, pixels_BHWC: FloatArray) -> FloatArray:
        """Run the model on pixels in [0, 1], (B, H, W, C); return the confidence of every class (B, N)."""
        confidences = self.loaded.outputs.confidences
        parts = [confidences(logits_BN).cpu().numpy().astype(np.float32) for logits_BN in self._logits(pixels_BHWC)]
        return np.concatenate(parts)

    def predicted(self, pixels_BHWC: FloatArray) -> Indices:
        """Run the model on pixels in [0, 1], (B, H, W, C); return the most likely class of each image (B,)."""
        predictions = self.loaded.outputs.predictions
        return np.concatenate([predictions(logits_BN)[1].cpu().numpy() for logits_BN in self._logits(pixels_BHWC)])

    def _logits(self, pixels_BHWC: FloatArray) -> Iterator[Tensor]:
        """Yield the logits of the images, batch by batch."""
        with torch.no_grad():
            for start in range(0, len(pixels_BHWC), DEFAULT_BATCH):
                pixels_BCHW = torch.from_numpy(pixels_BHWC[start : start + DEFAULT_BATCH]).permute(0, 3, 1, 2)
                with multiplying(self.config.compute.precision):
                    returned = self.model(self.normalisation.apply(pixels_BCHW.contiguous()).to(self.device))
                yield self.loaded.outputs.logits(returned)


def as_pixels(picture: Original) -> FloatArray:
    """Return the pixels of an image in [0, 1], (H, W, C)."""
    return unit_range(picture.pixels_HWC)


def as_batch(pictures: Sequence[Original]) -> Tensor:
    """Stack pictures as pixels in [0, 1], (B, C, H, W)."""
    return torch.from_numpy(np.stack([as_pixels(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()
