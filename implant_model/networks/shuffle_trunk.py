"""The front of a ShuffleNet of `jobs.train`: local descriptors by weights of one's own pictures.

Its second and third stage (Ma et al. 2018) end in maps of which each place is a descriptor of what
lies around it; what a training taught them elsewhere, on phantoms or on other implants, then serves
where radiographs are few.

Shapes: B images, C channels, H height, W width.
"""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

from implant_model.networks.spec import SHUFFLE_TRUNK
from implant_model.networks.torchvision_models import models

STAGE2, STAGE3 = 1, 2
"""Stages of a trunk that ends after the second, or the third; torchvision counts the stem."""
CHANNELS: Final = {STAGE2: 48, STAGE3: 96}
STRIDE_PX: Final = {STAGE2: 8, STAGE3: 16}


class ShuffleTrunk(nn.Module):
    """Normalised grey picture in, last maps out.

    Args:
        stages: STAGE2 or STAGE3.
    """

    def __init__(self, stages: int) -> None:
        super().__init__()
        whole = models.get_model(SHUFFLE_TRUNK)
        stem, norm, activation = whole.conv1
        self.conv1 = nn.Sequential(
            nn.Conv2d(1, stem.out_channels, 3, stride=2, padding=1, bias=False), norm, activation
        )
        self.maxpool = whole.maxpool
        self.stage2 = whole.stage2
        self.stage3 = whole.stage3 if stages == STAGE3 else nn.Identity()

    def forward(self, images_B1HW: Tensor) -> Tensor:
        """Return maps, BCHW."""
        maps: Tensor = self.stage3(self.stage2(self.maxpool(self.conv1(images_B1HW))))
        return maps


def trunk_state(packed: Mapping[str, Tensor], stages: int) -> dict[str, Tensor]:
    """Return the trunk's part of the weights of a package's classifier `SHUFFLE_TRUNK`."""
    return {name: packed[f"backbone.{name}"] for name in ShuffleTrunk(stages).state_dict()}
