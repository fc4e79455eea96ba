"""Networks of a package: what they are made of, and how they run together.

Letters: B batch, C channels (or classes, for logits and probabilities), H height, W width,
F features. Images are grey in 0..1, bone bright; each network normalises them inside.
"""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Final

import torch  # noqa: F401  # before the stand-in: torch itself must not meet it
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from implant_model.errors import UsageError
from implant_model.networks.fisher import (
    EdgeFisherBackbone,
    FisherBackbone,
    LiteFisherBackbone,
)
from implant_model.networks.spec import (
    BACKBONES,
    FISHER,
    FISHER_LITE,
    TIMM_BACKBONES,
    NetworkSpec,
    check_specs,
)
from implant_model.networks.unet import UNet

__all__ = ["models"]

_COMPILER: Final = "torch._dynamo"


@contextmanager
def _without_compiler() -> Iterator[None]:
    if _COMPILER in sys.modules:
        yield  # it is there already
        return
    package, utils = ModuleType(_COMPILER), ModuleType(f"{_COMPILER}.utils")
    package.__path__ = []
    package.utils = utils  # type: ignore[attr-defined]
    utils.is_compile_supported = lambda device: False  # type: ignore[attr-defined]
    stand_ins = {module.__name__: module for module in (package, utils)}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


with _without_compiler():
    from torchvision import models


__all__ = [
    "BACKBONES",
    "Ensemble",
    "ImplantClassifier",
    "ImplantSegmenter",
    "NetworkSpec",
    "build",
]

# The module whose output is the last feature map, by the front of the architecture's name.
_FEATURE_MAPS = {
    "resne": "layer4",
    "wide_resnet": "layer4",
    "mobilenet": "features",
    "efficientnet": "features",
    "densenet": "features",
    "convnextv2": "stages",
    "convnext": "features",
    "regnet": "trunk_output",
    "vgg": "features",
    "shufflenet": "conv5",
    "mnasnet": "layers",
}
FISHER_BACKBONES: Final[Mapping[str, type[FisherBackbone]]] = {
    FISHER: EdgeFisherBackbone,
    FISHER_LITE: LiteFisherBackbone,
}


class _Normalised(nn.Module):
    """Knows the mean and deviation that its input is normalised with."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std), persistent=False)

    def normalise(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return (images - mean) / std."""
        return (images_BCHW - self.mean) / self.std


class ImplantClassifier(_Normalised):
    """A backbone with 1 or 2 input channels and a head for the catalogue.

    The backbone is torchvision's or timm's, whose own head is taken away, or a `FisherBackbone`.

    Attributes:
        backbone: Ends in the embedding.
        head: The linear layer from embedding to logits.
        num_features: Length of the embedding.
    """

    def __init__(self, spec: NetworkSpec, backbone: nn.Module, num_classes: int) -> None:
        super().__init__(spec)
        if isinstance(backbone, FisherBackbone):
            self.num_features = backbone.num_features
        else:
            _replace_entry(backbone, spec.channels)
            self.num_features = _take_head(backbone)
        self.backbone = backbone
        self.head = nn.Linear(self.num_features, num_classes)

    def features(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the embedding, BF, that the head is applied to."""
        features_BF: torch.Tensor = self.backbone(self.normalise(images_BCHW))
        return features_BF

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Return logits, BC."""
        logits_BC: torch.Tensor = self.head(self.features(images_BCHW))
        return logits_BC

    @property
    def feature_map(self) -> nn.Module:
        """The module whose output is the last map with a height and a width; no Fisher vector's."""
        name = next(
            module
            for front, module in _FEATURE_MAPS.items()
            if self.spec.architecture.startswith(front)
        )
        return self.backbone.get_submodule(name)


class ImplantSegmenter(_Normalised):
    """A U-Net that finds the implant's pixels."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__(spec)
        if spec.width is None:
            raise UsageError(f"The segmenter {spec.file!r} has no width.")
        self.unet = UNet(spec.width, spec.reduction)

    def forward(self, images_B1HW: torch.Tensor) -> torch.Tensor:
        """Return logits of the mask, B1HW."""
        logits_B1HW: torch.Tensor = self.unet(self.normalise(images_B1HW))
        return logits_B1HW

    def with_cut_out(self, images_B1HW: torch.Tensor) -> torch.Tensor:
        """Return B2HW: the radiograph, and the radiograph times its mask.

        The mask is the probability, not cut at one half: a cut would let a rounding error turn
        whole pixels on and off, and results would depend on the hardware.
        """
        mask_B1HW = torch.sigmoid(self(images_B1HW))
        return torch.cat((images_B1HW, images_B1HW * mask_B1HW), dim=1)


def build(spec: NetworkSpec, num_classes: int, *, pretrained: bool = False) -> nn.Module:
    """Build one network.

    Args:
        spec: What to build.
        num_classes: Implants of the catalogue; without meaning for a segmenter.
        pretrained: Start a backbone from torchvision's weights (ImageNet), which torch keeps in
            its hub folder or fetches; a U-Net always starts from scratch.

    Returns:
        ImplantSegmenter or ImplantClassifier, in training mode.

    Raises:
        UsageError: The pretrained weights are neither at hand nor to be had, or timm, which the
            backbone is of, is not installed.
    """
    if spec.role == "segmenter":
        return ImplantSegmenter(spec)
    if spec.architecture in FISHER_BACKBONES:
        return ImplantClassifier(spec, FISHER_BACKBONES[spec.architecture](), num_classes)
    return ImplantClassifier(spec, _backbone(spec.architecture, pretrained), num_classes)


def _backbone(architecture: str, pretrained: bool) -> nn.Module:
    backbone = _unfilled(architecture)
    if pretrained:
        backbone.load_state_dict(pretrained_weights(architecture))
    return backbone


def pretrained_weights(architecture: str) -> dict[str, torch.Tensor]:
    """Return torchvision's weights; read by torch without unpickling anything but tensors.

    Raises:
        UsageError: They are neither at hand nor to be had.
    """
    weights = models.get_model_weights(architecture).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        state = weights.get_state_dict(
            check_hash=True, weights_only=True, progress=False, map_location="cpu"
        )
    except OSError as error:  # no network is a URLError, and that an OSError
        raise UsageError(
            f"The pretrained weights of {architecture} are not in {folder} and could not be "
            f"fetched from {weights.url} ({error}); put them there, or train without them."
        ) from error
    return current_names(state)


def current_names(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights of torchvision's by the names that its layers have now.

    DenseNet's files are older than those: `denselayer1.norm.1` is now `denselayer1.norm1`.
    """
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name): tensor
        for name, tensor in state.items()
    }


def head_name(architecture: str) -> str:
    """Return what torchvision or timm calls the last linear layer of a backbone."""
    return _last_linear(_unfilled(architecture))[0]


def _unfilled(architecture: str) -> nn.Module:
    if architecture not in TIMM_BACKBONES:
        network: nn.Module = models.get_model(architecture)
        return network
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            f"The network {architecture} is timm's, which is not installed: pip install timm."
        ) from error
    own: nn.Module = timm.create_model(architecture, pretrained=False)
    return own


def _replace_entry(backbone: nn.Module, channels: int) -> None:
    """Give the first convolution 1 or 2 input channels instead of three.

    Each new channel gets the sum of the three colours' weights over the number of channels: a grey
    in all channels gives what it gave as a colour image, and new weights keep their variance.
    """
    name, colour = next(
        (name, module)
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3
    )
    grey = nn.Conv2d(
        channels,
        colour.out_channels,
        colour.kernel_size,  # type: ignore[arg-type]  # a pair, typed as any number of them
        colour.stride,  # type: ignore[arg-type]
        colour.padding,  # type: ignore[arg-type]
        bias=colour.bias is not None,
    )
    with torch.no_grad():
        total = colour.weight.sum(dim=1, keepdim=True) / channels
        grey.weight.copy_(total.expand_as(grey.weight))
        if grey.bias is not None and colour.bias is not None:
            grey.bias.copy_(colour.bias)
    backbone.set_submodule(name, grey)


def _take_head(backbone: nn.Module) -> int:
    """Put the identity in place of the last linear layer; return how many features it took."""
    name, head = _last_linear(backbone)
    backbone.set_submodule(name, nn.Identity())
    return head.in_features


def _last_linear(backbone: nn.Module) -> tuple[str, nn.Linear]:
    return [
        (name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Linear)
    ][-1]


class Ensemble(nn.Module):
    """All networks of a package as one: OrthoNet's average of classifiers.

    Args:
        networks: As built from the package's specs; at most one segmenter, wanted where a
            classifier has 2 channels.

    Raises:
        UsageError: No classifier, two segmenters, or a cut-out wanted and no segmenter.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        segmenters = [net for net in networks if isinstance(net, ImplantSegmenter)]
        self.segmenter = segmenters[0] if segmenters else None
        self.classifiers = nn.ModuleList(
            net for net in networks if isinstance(net, ImplantClassifier)
        )
        check_specs([net.spec for net in networks if isinstance(net, _Normalised)])

    def inputs(self, images_B1HW: torch.Tensor) -> list[torch.Tensor]:
        """Return what each classifier sees, B1HW or B2HW; the mask is made once."""
        both = images_B1HW
        if self.segmenter is not None and any(net.spec.channels == 2 for net in self.members):
            both = self.segmenter.with_cut_out(images_B1HW)
        return [both if net.spec.channels == 2 else images_B1HW for net in self.members]

    def forward(self, images_B1HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all networks.

        Args:
            images_B1HW: Radiographs in 0..1.

        Returns:
            Log of the averaged probabilities, BC float32, and the embeddings, each of length one,
            side by side, BF float32 (their directions tell known from unknown better than their
            lengths, which follow contrast; Mueller and Hein 2025, arXiv:2505.18032).
        """
        return self.average(self.embeddings(images_B1HW))

    def embeddings(self, images_B1HW: torch.Tensor) -> list[torch.Tensor]:
        """Return what each classifier's head is applied to, BF."""
        inputs = self.inputs(images_B1HW)
        return [net.features(seen) for net, seen in zip(self.members, inputs, strict=True)]

    def average(self, embeddings: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what `forward` does, of embeddings."""
        logs, features = [], []
        for network, embedding_BF in zip(self.members, embeddings, strict=True):
            logs.append(functional.log_softmax(network.head(embedding_BF).float(), dim=1))
            features.append(functional.normalize(embedding_BF.float(), dim=1))
        average_BC = torch.logsumexp(torch.stack(logs), dim=0) - math.log(len(logs))
        return average_BC, torch.cat(features, dim=1)

    @property
    def num_features(self) -> int:
        """Return length of all embeddings together."""
        return sum(network.num_features for network in self.members)

    @property
    def members(self) -> list[ImplantClassifier]:
        """Return the classifiers, in the order of their embeddings."""
        return [net for net in self.classifiers if isinstance(net, ImplantClassifier)]


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm into the convolution that is registered just before it.

    In every architecture of `spec.BACKBONES`, and in the U-Net, that convolution is what
    the norm is applied to; a test holds each family of them against its outputs before.

    Args:
        network: In evaluation mode; changed in place.
    """
    for module in list(network.modules()):
        for (name, layer), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(layer, norm))
                setattr(module, norm_name, nn.Identity())
