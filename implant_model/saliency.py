"""Where on the radiograph a label comes from: Grad-CAM (Selvaraju et al. 2017) of each classifier.

A rough picture at the grid of the last feature map (7 x 7 for 224 pixels), or of a `FisherBackbone`
what each of its local descriptors adds to the label, to see that a network
looks at the implant and not at a side marker. It does not prove why a label was given.

Letters: B batch, C channels, H height, W width.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from implant_model.networks.build import Ensemble, ImplantClassifier
from implant_model.networks.fisher import FisherBackbone

Array = npt.NDArray[np.float32]


def heat_maps(
    networks: Ensemble, images_BHW: npt.NDArray[np.uint8], labels_B: npt.ArrayLike
) -> Array:
    """Computes what speaks for a label, averaged over the classifiers.

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
    """Returns one network's heat, BHW, in 0..1."""
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
    """Returns one network's heat, BHW, in 0..1."""
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
