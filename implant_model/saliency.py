"""Where on the radiograph a label comes from: Grad-CAM (Selvaraju et al. 2017) of each classifier.

A rough picture at the grid of the last feature map (7 x 7 for 224 pixels), or of a `FisherBackbone`
what each of its local descriptors adds to the label, to see that a network
looks at the implant and not at a side marker. It does not prove why a label was given.

Letters: B batch, C channels, H height, W width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from implant_model.classifier import Classifier
from implant_model.networks.build import Ensemble, ImplantClassifier
from implant_model.networks.fisher import FisherBackbone
from implant_model.networks.precision import full_precision

Array = npt.NDArray[np.float32]


def heat_maps(
    networks: Ensemble, images_BHW: npt.NDArray[np.uint8], labels_B: npt.ArrayLike
) -> Array:
    """Compute what speaks for a label, averaged over the classifiers.

    Args:
        networks: In evaluation mode, on any device.
        images_BHW: Preprocessed images, uint8.
        labels_B: Index of the implant to explain, one an image.

    Returns:
        Heat, float32 of shape BHW, in 0..1: 1 at the strongest place of each image, 0 where
        nothing speaks for the label; all 0 where nothing does at all.
    """
    device = next(networks.parameters()).device
    images_B1HW = torch.from_numpy(np.ascontiguousarray(images_BHW)).to(device)[:, None] / 255
    labels = torch.as_tensor(np.asarray(labels_B), dtype=torch.int64, device=device)
    with torch.no_grad():
        inputs = networks.inputs(images_B1HW)
    maps = [
        _heat(network, seen, labels) for network, seen in zip(networks.members, inputs, strict=True)
    ]
    heat_BHW = _to_one(torch.stack(maps).mean(dim=0))
    return np.asarray(heat_BHW.cpu().numpy(), np.float32)


def _heat(
    network: ImplantClassifier, images_BCHW: torch.Tensor, labels_B: torch.Tensor
) -> torch.Tensor:
    """Return one network's heat, BHW, in 0..1."""
    backbone = network.backbone
    if not isinstance(backbone, FisherBackbone):
        return _grad_cam(network, images_BCHW, labels_B)
    weights_BF = network.head.weight[labels_B]
    maps = [
        backbone.evidence(image[None], weights_F)
        for image, weights_F in zip(images_BCHW, weights_BF, strict=True)
    ]
    return _to_one(functional.relu(torch.stack(maps)))


def _grad_cam(
    network: ImplantClassifier, images_BCHW: torch.Tensor, labels_B: torch.Tensor
) -> torch.Tensor:
    """Return one network's heat, BHW, in 0..1."""
    maps: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        # A copy goes on, so that an activation that works in place leaves the kept map alone; and
        # it is a leaf, so that weights need no gradients.
        maps.append(output.detach().requires_grad_())
        return maps[-1].clone()

    handle = network.feature_map.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits_BC = network(images_BCHW)
            chosen = logits_BC.gather(1, labels_B[:, None]).sum()
        (gradients_BCHW,) = torch.autograd.grad(chosen, maps)
    finally:
        handle.remove()
    weights_BC11 = gradients_BCHW.mean(dim=(2, 3), keepdim=True)
    coarse_B1HW = functional.relu((weights_BC11 * maps[0].detach()).sum(dim=1, keepdim=True))
    size = images_BCHW.shape[-2:]
    fine = functional.interpolate(coarse_B1HW, size, mode="bilinear", align_corners=False)
    return _to_one(fine[:, 0])


def _to_one(heat_BHW: torch.Tensor) -> torch.Tensor:
    most_B11 = heat_BHW.amax(dim=(1, 2), keepdim=True)
    return torch.where(most_B11 > 0, heat_BHW / most_B11.clamp_min(1e-30), 0)


Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Explanation:
    """What the networks saw, and where an answer comes from.

    Attributes:
        image_HW: The preprocessed radiograph, uint8.
        cut_out_HW: The radiograph times the segmenter's mask, uint8; None without a segmenter.
        heat_HW: float32 in 0..1, see `saliency.heat_maps`; all 0 where nothing speaks for the
            label.
    """

    image_HW: Image
    cut_out_HW: Image | None
    heat_HW: npt.NDArray[np.float32]


def explain(classifier: Classifier, image_HW: Image, label: int) -> Explanation:
    """Explain one label of one image.

    Args:
        classifier: A package at work.
        image_HW: Preprocessed by that package's preprocessing, uint8.
        label: Index of the implant that heat is asked for.

    Raises:
        ValueError: The label is none of the package's, or the image is no uint8 picture.
    """
    if not 0 <= label < len(classifier.package.catalogue):
        raise ValueError(
            f"Label {label} was asked for; accepted are 0 to "
            f"{len(classifier.package.catalogue) - 1}."
        )
    if image_HW.dtype != np.uint8 or image_HW.ndim != 2:
        raise ValueError(
            f"The image is {image_HW.dtype} with {image_HW.ndim} dimensions; uint8, (H, W) is."
        )
    heat_1HW = heat_maps(classifier.networks, image_HW[None], [label])
    return Explanation(image_HW, _cut_out(classifier, image_HW), heat_1HW[0])


def _cut_out(classifier: Classifier, image_HW: Image) -> Image | None:
    """Return what the classifiers with two channels see as their second."""
    segmenter = classifier.networks.segmenter
    if segmenter is None:
        return None
    bytes_HW = torch.from_numpy(np.ascontiguousarray(image_HW)).to(classifier.device)
    with torch.inference_mode(), full_precision(classifier.device):
        both_12HW = segmenter.with_cut_out(bytes_HW[None, None].float() / 255)
    grey_HW = (both_12HW[0, 1].float() * 255).round().clamp(0, 255)
    return np.asarray(grey_HW.to(torch.uint8).cpu().numpy(), np.uint8)
