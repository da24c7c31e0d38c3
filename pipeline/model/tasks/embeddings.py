"""Tasks of image encoders: similarity to reference embeddings, and zero-shot classification by embedded texts.

Legend: B images, N named vectors, D width of an embedding.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import ConfigError
from pipeline.model.outputs import OutputKey, OutputKind, described, named_parts, picked
from pipeline.model.tasks.base import Task

EMBEDDINGS = ("image_embeds", "pooler_output")
"""Names under which encoders return the embedding of an image, the first one in the space of the texts."""


@dataclass(frozen=True)
class Similarity(Task):
    """The output of a reference is the cosine of the image's embedding and the reference's.

    Formula:
        s_n = e . r_n / (|e| |r_n|)

    Symbols:
        e: embedding of the image, (D,); r_n: vector n.

    Shapes: returned (B, D), or a dict or dataclass with it as `image_embeds` or `pooler_output`; outputs (B, N).

    Attributes:
        names: the name of each vector.
        vectors_ND: the vectors.
        where: the setting that gives the vectors, for messages.
        digest: sha256 of names and vectors.

    Raises:
        ConfigError: the names do not fit the vectors, or a vector is zero or not finite.
    """

    names: tuple[str, ...]
    vectors_ND: Tensor = field(compare=False, repr=False)
    where: str = "model.reference_embeddings"
    digest: str = ""
    _on_device: dict[torch.device, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)

    name = "similarity"
    kinds: ClassVar[tuple[OutputKind, ...]] = ("raw",)

    def __post_init__(self) -> None:
        vectors_ND = self.vectors_ND.detach().cpu().float().clone()
        _check_vectors(self.where, self.names, vectors_ND)
        object.__setattr__(self, "digest", _digest(self.names, vectors_ND))
        object.__setattr__(self, "vectors_ND", functional.normalize(vectors_ND))

    def outputs(self, returned: object, key: OutputKey | None) -> Tensor:
        """Return the cosine of each image and each vector, (B, N).

        Raises:
            ConfigError: the embedding is not found, or has another width than the vectors.
        """
        embeddings_BD = embeddings_of(returned, key)
        width = self.vectors_ND.shape[1]
        if embeddings_BD.shape[1] != width:
            raise ConfigError.one(
                self.where,
                f"the vectors have {width} numbers, but the model's embeddings have {embeddings_BD.shape[1]}",
                "make them with the text or image encoder that belongs to this model, or set model.output_key",
            )
        vectors_ND = self._vectors_on(embeddings_BD.device)
        with torch.autocast(embeddings_BD.device.type, enabled=False):  # bf16 is too coarse for a cosine
            return functional.normalize(embeddings_BD.float()) @ vectors_ND.T

    def _vectors_on(self, device: torch.device) -> Tensor:
        """Return the vectors on a device, copied to it once instead of in every pass."""
        if device not in self._on_device:
            with torch.inference_mode(False):  # autograd refuses tensors made in inference mode
                self._on_device[device] = self.vectors_ND.to(device)
        return self._on_device[device]

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to other processes, which may not have the device."""
        return {**vars(self), "_on_device": {}}

    def identity(self) -> dict[str, Any]:
        """Return the name of the task and the digest of the vectors."""
        return {"task": self.name, "embeddings_sha256": self.digest}


@dataclass(frozen=True)
class ZeroShot(Similarity):
    """The logit of a class is the scaled cosine of the image's embedding and that of the class's text.

    Formula:
        z_n = a s_n + b, with the cosine s_n of `Similarity`; softmax(z)_n, or sigmoid(z_n) with SigLIP's b.

    Symbols:
        a: scale (`logit_scale`); b: bias (`logit_bias`), which only a sigmoid needs.

    Source: Radford and others, "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021),
    figure 3; Zhai and others, "Sigmoid Loss for Language Image Pre-Training" (ICCV 2023), algorithm 1.

    Attributes:
        scale, bias: a and b; b is None where the model has none.
    """

    where: str = "model.text_embeddings"
    scale: float = 100.0
    bias: float | None = None

    name = "zero_shot"
    kinds: ClassVar[tuple[OutputKind, ...]] = ("softmax", "sigmoid", "raw")

    @property
    def default_kind(self) -> OutputKind:
        """Softmax, or sigmoid for a model with a bias, which a softmax would ignore."""
        return "softmax" if self.bias is None else "sigmoid"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.scale) and self.scale > 0 and math.isfinite(self.bias or 0)):
            raise ConfigError.one(
                "model.logit_scale", f"scale {self.scale} and bias {self.bias} must be finite, and the scale positive"
            )

    def outputs(self, returned: object, key: OutputKey | None) -> Tensor:
        """Return the scaled cosines, (B, N)."""
        return super().outputs(returned, key) * self.scale + (self.bias or 0.0)

    def identity(self) -> dict[str, Any]:
        """Return the name of the task, the digest of the vectors, and the scale."""
        return super().identity() | {"logit_scale": self.scale, "logit_bias": self.bias}


def embeddings_of(returned: object, key: OutputKey | None) -> Tensor:
    """Find the embeddings (B, D) in what an encoder returned; (B, D, 1, 1) is flattened.

    Raises:
        ConfigError: there are none, or without a key more than one thing could be meant.
    """
    parts = named_parts(returned)
    named = [parts[name] for name in EMBEDDINGS if isinstance(parts.get(name), Tensor)]
    found = named[0] if key is None and named else _only_row(parts) if key is None else None
    found = picked(returned, key) if found is None else found
    if isinstance(found, Tensor) and found.ndim == 4 and found.shape[2:] == (1, 1):
        found = found[..., 0, 0]
    if isinstance(found, Tensor) and found.ndim == 2 and found.is_floating_point():
        return found
    raise ConfigError.one(
        "model.output_key",
        f"embeddings are (B, D), one row per image, but the model returns {described(found)}",
        "name the embedding, or pool the tokens in a module around the model",
    )


def _only_row(parts: Mapping[OutputKey, object]) -> Tensor | None:
    """Return the only tensor that can be embeddings (B, D); None if there are several, or none."""
    distinct = {id(part): part for part in parts.values() if isinstance(part, Tensor)}
    rows = [part for part in distinct.values() if part.ndim == 2 and part.is_floating_point()]
    return rows[0] if len(rows) == 1 else None


def _check_vectors(where: str, names: tuple[str, ...], vectors_ND: Tensor) -> None:
    if vectors_ND.ndim != 2 or len(vectors_ND) != len(names) or not vectors_ND.numel():
        raise ConfigError.one(where, f"{len(names)} names need vectors ({len(names)}, D), not {described(vectors_ND)}")
    twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
    if twice:
        raise ConfigError.one(where, f"two classes are named '{twice[0]}', and one vector cannot tell them apart")
    for name, vector_D in zip(names, vectors_ND, strict=True):
        if not bool(vector_D.isfinite().all()):
            raise ConfigError.one(where, f"the vector of '{name}' contains NaN or infinity", "embed it again")
        if not bool(vector_D.any()):
            raise ConfigError.one(where, f"the vector of '{name}' is zero, so it has no direction", "embed it again")


def _digest(names: tuple[str, ...], vectors_ND: Tensor) -> str:
    """Return the sha256 of names and vectors in their order."""
    total = hashlib.sha256(repr((names, tuple(vectors_ND.shape))).encode("utf-8", "surrogatepass"))
    total.update(vectors_ND.contiguous().numpy().tobytes())
    return total.hexdigest()
