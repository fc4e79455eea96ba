"""How a network of a package is built: file, role, architecture, input channels, normalisation.

Free of torch, so that tasks that only carry a package need not load it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from implant_model.errors import UsageError
from implant_model.json_fields import Fields

Role = Literal["segmenter", "classifier"]
Precision = Literal["float32", "bfloat16"]
"""What convolutions are computed in; see `implant_model.classifier.Classifier`."""

# A closed list: the name comes out of a file, and torchvision also builds networks of 600 million
# weights. Each has a last linear layer on a pooled feature map, which novelty and saliency read.
BACKBONES = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large",
    "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4",
    "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l",
    "densenet121", "densenet161", "densenet169", "densenet201",
    "convnext_tiny", "convnext_small", "convnext_base", "convnext_large",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_1_6gf", "regnet_x_3_2gf", "regnet_x_8gf",
    "regnet_y_400mf", "regnet_y_800mf", "regnet_y_1_6gf", "regnet_y_3_2gf", "regnet_y_8gf",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn",
)  # fmt: skip
# Timm's, which is not among the dependencies: whoever uses one of these installs it.
TIMM_BACKBONES = (
    "convnextv2_atto", "convnextv2_femto", "convnextv2_pico", "convnextv2_nano", "convnextv2_tiny",
    "convnextv2_base", "convnextv2_large",
)  # fmt: skip
UNET = "unet"
# Not of torchvision: see `implant_model.networks.fisher`
FISHER = "fisher"
FISHER_LITE = "fisher_efficientnet_lite"
FISHERS = (FISHER, FISHER_LITE)
CLASSIFIERS = (*BACKBONES, *TIMM_BACKBONES, *FISHERS)
_ROLES = ("segmenter", "classifier")
MAX_WIDTH = 128
MAX_REDUCTION = 8
# Mean and deviation over the three channels of ImageNet, what pretrained weights expect of a grey.
GREY_MEAN = 0.449
GREY_STD = 0.226


@dataclass(frozen=True)
class NetworkSpec:
    """One network of a package.

    Attributes:
        file: Name of its weights in the package, `*.safetensors`.
        role: `segmenter` (mask of the implant, at most one in a package) or `classifier`.
        architecture: One of `CLASSIFIERS` for a classifier, `unet` for a segmenter.
        channels: 1 the radiograph; 2 the radiograph and its cut-out by the segmenter.
        width: Channels of a U-Net's first level; None for other architectures.
        reduction: A U-Net works on the image averaged over squares of this many pixels a side.
        mean: Subtracted from the input in 0..1, the same for each channel.
        std: What the input is then divided by.

    Raises:
        UsageError: From the constructor, if the fields do not fit each other.
    """

    file: str
    role: Role
    architecture: str
    channels: Literal[1, 2] = 1
    width: int | None = None
    reduction: int = 1
    mean: float = GREY_MEAN
    std: float = GREY_STD

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault:
            raise UsageError(f"The network {self.file!r} cannot be built: {fault}")

    def _fault(self) -> str | None:
        if self.role not in _ROLES:
            return f"its role is {self.role!r}; segmenter or classifier is accepted."
        if self.role == "segmenter":
            return self._segmenter_fault()
        if self.architecture not in CLASSIFIERS:
            accepted = ", ".join(CLASSIFIERS)
            return f"a classifier {self.architecture!r} is not known; accepted are {accepted}."
        if self.architecture in FISHERS and self.channels != 1:
            return f"a classifier {self.architecture} has 1 input channel, not {self.channels}."
        if self.channels not in (1, 2):
            return f"it has {self.channels} input channels; 1 or 2 are accepted."
        if self.width is not None or self.reduction != 1:
            return "width and reduction are for a segmenter only."
        return self._normalisation_fault()

    def _segmenter_fault(self) -> str | None:
        if self.architecture != UNET:
            return f"a segmenter {self.architecture!r} is not known; accepted is {UNET}."
        if self.channels != 1:
            return f"a segmenter has 1 input channel, not {self.channels}."
        if self.width is None or not 1 <= self.width <= MAX_WIDTH:
            return f"its width is {self.width}; 1 to {MAX_WIDTH} channels are accepted."
        if not 1 <= self.reduction <= MAX_REDUCTION:
            return f"its reduction is {self.reduction}; 1 to {MAX_REDUCTION} is accepted."
        return self._normalisation_fault()

    def _normalisation_fault(self) -> str | None:
        if not -10 <= self.mean <= 10 or not 1e-3 <= self.std <= 10:
            return f"mean {self.mean} or std {self.std} is senseless for a picture in 0..1."
        return None

    def to_json(self) -> dict[str, object]:
        """Return the fields as they stand in `package.json`."""
        return {
            "file": self.file,
            "role": self.role,
            "architecture": self.architecture,
            "channels": self.channels,
            "width": self.width,
            "reduction": self.reduction,
            "mean": self.mean,
            "std": self.std,
        }

    @classmethod
    def from_json(cls, document: object, where: str = "network") -> "NetworkSpec":
        """Read what `to_json` wrote.

        Raises:
            PackageError: A field is missing, unknown or of the wrong type.
            UsageError: The fields do not fit each other.
        """
        fields = Fields(document, where)
        role: Role = "segmenter" if fields.choice("role", _ROLES) == "segmenter" else "classifier"
        spec = cls(
            file=fields.text("file"),
            role=role,
            architecture=fields.text("architecture"),
            channels=2 if fields.whole("channels", 1, 2) == 2 else 1,
            width=fields.whole_or_none("width", 1, MAX_WIDTH),
            reduction=fields.whole("reduction", 1, MAX_REDUCTION),
            mean=fields.number("mean", -10, 10),
            std=fields.number("std", 1e-3, 10),
        )
        fields.close()
        return spec


def check_specs(specs: Sequence[NetworkSpec]) -> None:
    """Refuse networks that do not make an ensemble.

    Raises:
        UsageError: No classifier, two segmenters, or a cut-out wanted and no segmenter.
    """
    segmenters = sum(spec.role == "segmenter" for spec in specs)
    if segmenters == len(specs):
        raise UsageError("The model has no classifier; at least one is needed.")
    if segmenters > 1:
        raise UsageError(f"The model has {segmenters} segmenters; at most one is accepted.")
    if not segmenters and any(spec.channels == 2 for spec in specs):
        raise UsageError(
            "A classifier of the model has 2 input channels, radiograph and cut-out, but there is "
            "no segmenter to cut the implant out."
        )
