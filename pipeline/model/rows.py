"""What the host knows of the rows of a batch: the image and the target of each, without asking the device.

Legend: I images, B rows (image, target), R some of the rows, T targets of one image.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pipeline.model.batching import for_autograd


@dataclass(frozen=True)
class Rows:
    """The rows of a batch; all tensors are on the host.

    Attributes:
        images_B: index of each row's image in the batch, in increasing order.
        targets_B: the target class of each row.
    """

    images_B: Tensor
    targets_B: Tensor

    @classmethod
    def of(cls, images_B: Tensor, targets_B: Tensor) -> "Rows":
        """Return the rows with these images and targets; the host waits for those that are on a device."""
        return cls(for_autograd(images_B.cpu().long()), for_autograd(targets_B.cpu().long()))

    def select(self, kept_R: Tensor) -> "Rows":
        """Keep the rows with the given indices."""
        return Rows(self.images_B[kept_R], self.targets_B[kept_R])

    @cached_property
    def first_I(self) -> Tensor:
        """Index of the first row of each image."""
        return torch.cat([self.images_B.new_ones(1), self.images_B.diff()]).nonzero()[:, 0]

    @cached_property
    def places_B(self) -> Tensor:
        """Index of each row's image among the distinct images."""
        return torch.searchsorted(self.images_B[self.first_I], self.images_B)

    @cached_property
    def ranks_B(self) -> Tensor:
        """Index of each row among the rows of its image."""
        return torch.arange(len(self.images_B)) - self.first_I[self.places_B]

    @property
    def all_targets_BT(self) -> Tensor:
        """All targets of each row's image in the order of its rows, padded with the first one."""
        targets_IT = self.targets_B[self.first_I][:, None].repeat(1, int(self.ranks_B.max()) + 1)
        targets_IT[self.places_B, self.ranks_B] = self.targets_B
        return targets_IT[self.places_B]

    def by_image(self) -> tuple[Tensor, ...]:
        """Return the indices of the rows of each image, (R,) each."""
        return torch.arange(len(self.images_B)).tensor_split(self.first_I[1:])

    def by_rank(self) -> list[Tensor]:
        """Return the rows with the first target of each image, then those with the second, and so on, (R,) each."""
        most = int(self.ranks_B.max()) + 1 if len(self.images_B) else 0
        return [(self.ranks_B == rank).nonzero()[:, 0] for rank in range(most)]
