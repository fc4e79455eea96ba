"""Why a package says what it says of one radiograph: saliency, and the segmenter's cut-out.

Letters: B batch, H height, W width.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from implant_model.classifier import Classifier
from implant_model.networks.precision import full_precision
from implant_model.saliency import heat_maps

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
    """Explains one label of one image.

    Args:
        classifier: A package at work.
        image_HW: Preprocessed by that package's preprocessing, uint8.
        label: Index of the implant that heat is asked for.

    Raises:
        ValueError: The label is none of the package's, or the image is no uint8 picture.
    """
    if not 0 <= label < len(classifier.package.catalogue):
        raise ValueError(
            f"Label {label} was asked for; 0 to {len(classifier.package.catalogue) - 1} are wanted."
        )
    if image_HW.dtype != np.uint8 or image_HW.ndim != 2:
        raise ValueError(
            f"The image is {image_HW.dtype} with {image_HW.ndim} dimensions; uint8, (H, W) is."
        )
    heat_1HW = heat_maps(classifier.networks, image_HW[None], [label])
    return Explanation(image_HW, _cut_out(classifier, image_HW), heat_1HW[0])


def _cut_out(classifier: Classifier, image_HW: Image) -> Image | None:
    """Returns what the classifiers with two channels see as their second."""
    segmenter = classifier.networks.segmenter
    if segmenter is None:
        return None
    bytes_HW = torch.from_numpy(np.ascontiguousarray(image_HW)).to(classifier.device)
    with torch.inference_mode(), full_precision(classifier.device):
        both_12HW = segmenter.with_cut_out(bytes_HW[None, None].float() / 255)
    grey_HW = (both_12HW[0, 1].float() * 255).round().clamp(0, 255)
    return np.asarray(grey_HW.to(torch.uint8).cpu().numpy(), np.uint8)
