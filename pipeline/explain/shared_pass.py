"""The forward pass that all methods share, and what it says of every (image, target) pair.

Legend: B rows (image, target).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.cams import Adapter, CamMethod
from pipeline.explain.batches import Images
from pipeline.explain.rows import ImageFacts, MethodFacts, PairFacts, Row, failed_method_row
from pipeline.model.evidence import Evidence
from pipeline.model.outputs import Outputs

_MISSED = "not_detected"


class SharedPass(NamedTuple):
    """Results of the shared forward pass: (image, target) pairs (evidence is None without any), and failure rows."""

    pairs: "Pairs"
    evidence: Evidence | None
    failed: list[Row]

    def parts(self, methods: Mapping[str, CamMethod]) -> "Iterator[SharedPass]":
        """Yield the rows whose maps have the same shapes together; all rows, unless methods say otherwise."""
        if self.evidence is None:
            return
        adapters = [method for method in methods.values() if isinstance(method, Adapter)]
        groups = list(zip(*(adapter.groups(self.evidence) for adapter in adapters), strict=True))
        if len(set(groups)) <= 1:
            yield self
            return
        for group in dict.fromkeys(groups):
            rows = [row for row, other in enumerate(groups) if other == group]
            yield SharedPass(self.pairs.rows(rows), self.evidence.select(torch.tensor(rows)), [])

    def facts(self) -> list[ImageFacts]:
        """Return what all methods' rows of each (image, target) pair share."""
        return [] if self.evidence is None else self.pairs.facts(self.evidence.outputs).each()


class Pairs(NamedTuple):
    """The chosen (image, target) pairs, before any gradient: their images, logits, targets, and the rules that chose.

    Pairs of one image are adjacent; `images_B` is the index of each pair's image in the shared pass. All tensors are on
    the host, which makes rows of them without asking the device.
    """

    images: Images
    logits_BN: Tensor
    images_B: Tensor
    targets_B: Tensor
    rules: list[str]

    def found(self, outputs: Outputs, methods: Collection[MethodFacts]) -> "tuple[Pairs, list[Row]]":
        """Return the pairs whose target the model found, and failure rows for the others: only detectors miss any.

        An image of which no target was found has one failure row; else there is one for each method and missed target.
        """
        missed_B = outputs.missed(self.logits_BN).gather(1, self.targets_B[:, None])[:, 0].tolist()
        if not any(missed_B):
            return self, []
        images = self.images_B.tolist()
        partly = {image for image, missed in zip(images, missed_B, strict=True) if not missed}
        rows, whole = list[Row](), dict[int, list[int]]()
        for i, (image, facts) in enumerate(zip(images, self.facts(outputs).each(), strict=True)):
            if missed_B[i] and image in partly:
                detail = f"the detector found nothing of class {facts.target}"
                rows += [failed_method_row(facts, method, _MISSED, detail) for method in methods]
            elif missed_B[i]:
                whole.setdefault(image, []).append(i)
        rows += [self._image_row(pairs, outputs) for pairs in whole.values()]
        return self.rows([i for i, missed in enumerate(missed_B) if not missed]), rows

    def facts(self, outputs: Outputs) -> PairFacts:
        """Return what all methods' rows of the pairs share."""
        confidence_B, predicted_B = outputs.predictions(self.logits_BN)
        target_confidences_B = outputs.target_confidences(self.logits_BN, self.targets_B)
        target_logits_B = outputs.target_logits(self.logits_BN, self.targets_B)
        return PairFacts(
            self.images.shard,
            self.images.chunk,
            self.images.samples,
            tuple(self.rules),
            self.targets_B.numpy(),
            predicted_B.numpy() if outputs.has_confidences else None,
            *(column_B.detach().numpy() for column_B in (confidence_B, target_confidences_B, target_logits_B)),
        )

    def rows(self, kept: list[int]) -> "Pairs":
        """Keep the given pairs."""
        rules = [self.rules[i] for i in kept]
        return Pairs(self.images.rows(kept), self.logits_BN[kept], self.images_B[kept], self.targets_B[kept], rules)

    def _image_row(self, pairs: list[int], outputs: Outputs) -> Row:
        """Return the failure row of an image of which no target was found."""
        first = pairs[0]
        classes = ", ".join(str(int(self.targets_B[i])) for i in pairs)
        nothing = bool(outputs.missed(self.logits_BN[first]).all())
        found = "anything" if nothing else f"{'class' if len(pairs) == 1 else 'classes'} {classes}"
        return self.images.failed(self.images.samples[first], _MISSED, f"the detector did not find {found}")
