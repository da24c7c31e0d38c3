"""Runs the part of a model after a layer alone, on tensors of the caller's instead of what the layer gives.

Legend: P rows of a pass, C colours, (H, W) pixels, N classes.
"""

from torch import Tensor

from pipeline.model.batching import is_out_of_memory
from pipeline.model.device_failure import is_device_failure
from pipeline.model.engine import Engine, Exact
from pipeline.model.recording import replacing


class Cut:
    """Cuts a model behind a layer, and remembers whether the model supports it.

    Attributes:
        works: whether the part after the layer takes another number of rows than the pixels have.
    """

    def __init__(self) -> None:
        self.works = True

    def logits(
        self, engine: Engine | Exact, layer: str, changed: Tensor, pixels_1CHW: Tensor, *, differentiable: bool = False
    ) -> Tensor:
        """Run the model with a layer's output replaced by `changed`, (P, ...), and return logits (P, N).

        What comes before the layer runs on the one image, so that skip connections around the layer carry its real
        activations. If the model does not support this, all of it runs for each row.
        """
        module = engine.layer(layer)
        if self.works:
            try:
                with replacing(module, layer, lambda _: changed):
                    logits_PN = engine.logits(pixels_1CHW, differentiable=differentiable)
                if len(logits_PN) == len(changed):
                    return logits_PN
            except RuntimeError as error:
                if is_out_of_memory(error) or is_device_failure(error):
                    raise
            self.works = False  # a part after the layer depends on the batch size of the input
        with replacing(module, layer, lambda _: changed):
            return engine.logits(pixels_1CHW.expand(len(changed), -1, -1, -1), differentiable=differentiable)
