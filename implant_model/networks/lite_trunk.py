"""The front of an EfficientNet-Lite: local descriptors of a picture by weights of ImageNet.

Its first five stages (of seven) end in maps at a sixteenth of the size, of which each place is a
descriptor of what lies around it; what the later blocks make of them tells dogs from cars, and
implants worse (top-1 0.70 against 0.82 on 477 shoulders). Layers and names are those of the
published weights (Tan and Le 2019; the Lite variants without squeeze and excitation, with ReLU6).

Shapes: B images, C channels, H height, W width.
"""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

STRIDE_PX = 16
_STEM = 32
_EPSILON = 1e-3  # of the batch norms, as TensorFlow's


@dataclass(frozen=True)
class LiteSize:
    """Which of the EfficientNet-Lites.

    Attributes:
        name: As its publishers call it.
        stages: Of each stage repeats, side of the kernel, stride, expansion and channels out; each
            block's input is the last one's output.
    """

    name: str
    stages: tuple[tuple[int, int, int, int, int], ...]

    @property
    def channels(self) -> int:
        """Maps that come out."""
        return self.stages[-1][-1]


LITE1 = LiteSize(
    "EfficientNet-Lite1",
    ((1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 40), (4, 3, 2, 6, 80), (4, 5, 1, 6, 112)),
)
LITE2 = LiteSize(
    "EfficientNet-Lite2",
    ((1, 3, 1, 1, 16), (3, 3, 2, 6, 24), (3, 5, 2, 6, 48), (4, 3, 2, 6, 88), (4, 5, 1, 6, 120)),
)


class LiteTrunk(nn.Module):
    """Normalised grey picture in, last maps out."""

    def __init__(self, size: LiteSize) -> None:
        super().__init__()
        self._conv_stem = _SameConv2d(1, _STEM, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        blocks, channels = [], _STEM
        for repeats, kernel, stride, expansion, out in size.stages:
            for number in range(repeats):
                blocks.append(_Block(channels, out, kernel, 1 if number else stride, expansion))
                channels = out
        self._blocks = nn.ModuleList(blocks)

    def forward(self, images_B1HW: Tensor) -> Tensor:
        """Return maps, BCHW, at a sixteenth of the size."""
        maps = functional.relu6(self._bn0(self._conv_stem(images_B1HW)), inplace=True)
        for block in self._blocks:
            maps = block(maps)
        return maps


class _Block(nn.Module):
    """Expand, filter each channel, project: an inverted residual (Sandler et al. 2018)."""

    def __init__(self, inside: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.is_residual = stride == 1 and inside == out
        if expansion != 1:
            self._expand_conv = nn.Conv2d(inside, wide, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self.expands = expansion != 1
        self._depthwise_conv = _SameConv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = nn.BatchNorm2d(wide, eps=_EPSILON)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(out, eps=_EPSILON)

    def forward(self, maps_BCHW: Tensor) -> Tensor:
        wide = maps_BCHW
        if self.expands:
            wide = functional.relu6(self._bn0(self._expand_conv(wide)), inplace=True)
        filtered = functional.relu6(self._bn1(self._depthwise_conv(wide)), inplace=True)
        projected: Tensor = self._bn2(self._project_conv(filtered))
        return maps_BCHW + projected if self.is_residual else projected


class _SameConv2d(nn.Conv2d):
    """Padded as TensorFlow pads: one pixel more at the right and the bottom where it is odd.

    What is even is left to the convolution, which then needs no copy: a quarter of the time.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's name
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, right = (
            max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
            for side in input.shape[-2:]
        )
        around = down // 2, right // 2
        odd = right % 2, down % 2
        if any(odd):
            top, left = around
            input = functional.pad(input, (left, right - left, top, down - top))  # noqa: A001
            around = 0, 0
        return functional.conv2d(
            input, self.weight, self.bias, self.stride, around, self.dilation, self.groups
        )


def trunk_state(published: dict[str, Tensor], size: LiteSize) -> dict[str, Tensor]:
    """Return the trunk's part of a network's published weights, its first layer for greys.

    A grey in all three colours gives what it gave before.

    Raises:
        KeyError: A tensor is missing.
        ValueError: A tensor has another shape, as those of a network of another size have.
    """
    wanted = LiteTrunk(size).state_dict()
    state = {name: published[name] for name in wanted}
    entry = state["_conv_stem.weight"]
    state["_conv_stem.weight"] = entry.sum(dim=1, keepdim=True)
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise ValueError(f"{name} has the shape {tuple(state[name].shape)}.")
    return state
