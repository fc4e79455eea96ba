"""A U-Net of any width: Ronneberger et al. 2015 with batch norm and same-size convolutions.

Letters: B batch, C channels, H height, W width.
"""

import torch
from torch import nn
from torch.nn import functional

LEVELS = 4  # halvings: 16 pixels of the (reduced) image become one at the bottom
_MULTIPLE = 1 << LEVELS


class UNet(nn.Module):
    """Radiograph in, logits of the implant's mask out, at the size of the input.

    Args:
        width: Channels of the first level; each level below has twice as many.
        reduction: The image is first averaged over squares of this many pixels a side, and the
            logits are interpolated back: a mask needs less detail than a picture, and the cost
            falls with the square.
    """

    def __init__(self, width: int, reduction: int = 1) -> None:
        super().__init__()
        self.reduction = reduction
        widths = [width << level for level in range(LEVELS + 1)]
        self.entry = _double(1, width)
        self.down = nn.ModuleList(
            _double(widths[level], widths[level + 1]) for level in range(LEVELS)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2)
            for level in range(LEVELS)
        )
        self.up = nn.ModuleList(
            _double(2 * widths[level], widths[level]) for level in range(LEVELS)
        )
        self.exit = nn.Conv2d(width, 1, 1)

    def forward(self, images_B1HW: torch.Tensor) -> torch.Tensor:
        """Return logits, B1HW, for normalised images of any size."""
        height, width = images_B1HW.shape[-2:]
        # Of one channel, which any order of memory fits; marked as channels first, the average is
        # four times as fast on CPUs.
        plain = images_B1HW.squeeze(1).unsqueeze(1)
        small = functional.avg_pool2d(plain, self.reduction, ceil_mode=True)
        logits = self._padded(small)
        if logits.shape[-2:] == (height, width):
            return logits
        return functional.interpolate(logits, (height, width), mode="bilinear", align_corners=False)

    def _padded(self, images_B1HW: torch.Tensor) -> torch.Tensor:
        """Run the levels on images made a multiple of 16 at the right and the bottom."""
        height, width = images_B1HW.shape[-2:]
        pad = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        logits = self._levels(functional.pad(images_B1HW, pad, mode="replicate"))
        return logits[..., :height, :width]

    def _levels(self, images_B1HW: torch.Tensor) -> torch.Tensor:
        features = self.entry(images_B1HW)
        skips = []
        for block in self.down:
            skips.append(features)
            features = block(functional.max_pool2d(features, 2))
        for level in reversed(range(LEVELS)):
            grown = self.grow[level](features)
            features = self.up[level](torch.cat((skips[level], grown), dim=1))
        logits: torch.Tensor = self.exit(features)
        return logits


def _double(channels_in: int, channels_out: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers += [
            nn.Conv2d(channels, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
