"""Saliency and embedding of a radiograph on demand; torch is imported for the first one."""

import threading
from typing import TYPE_CHECKING, Final

import numpy as np

from implant_model.package.load import ModelPackage
from jobs.reviewing.originals import Original, Originals, Place

if TYPE_CHECKING:
    from implant_model.classifier import Classifier

SIZE_PX: Final = 320


class Heat:
    """Draws what speaks for an implant, and measures where a radiograph lies.

    Its methods may be called by several threads.

    Args:
        package: The model's; None draws nothing.
    """

    def __init__(self, package: ModelPackage | None) -> None:
        self._package = package
        self._classifier: Classifier | None = None
        self._lock = threading.Lock()

    @property
    def is_there(self) -> bool:
        """Return whether there is a package to draw with."""
        return self._package is not None

    def draw(self, originals: Originals, place: Place | None, implant: str) -> bytes | str:
        """Return radiograph and overlay side by side, as PNG, or a sentence why there is none."""
        if self._package is None or place is None:
            return "The model's package is not at hand: start with --model."
        prepared = originals.prepared(place)
        if isinstance(prepared, Original):
            return prepared.trouble or ""
        if prepared.image is None:
            return "It is no picture that the model may see."
        return self.of_image(prepared.image, implant)

    def of_image(self, image_HW: np.ndarray, implant: str) -> bytes:
        """Return radiograph and overlay side by side, as PNG.

        Args:
            image_HW: As the networks see it, uint8.
            implant: Its name in the catalogue.

        Raises:
            RuntimeError: There is no package.
        """
        if self._package is None:
            raise RuntimeError("There is no package to explain with.")
        from implant_model.saliency import explain
        from jobs.pages.saliency_picture import saliency_picture

        classifier = self._opened(self._package)
        label = self._package.catalogue.index(implant)
        with self._lock:
            return saliency_picture(explain(classifier, image_HW, label), SIZE_PX)

    def embedding(self, image_HW: np.ndarray) -> np.ndarray:
        """Return the embedding of one image, float32, as novelty is measured by.

        Args:
            image_HW: As the networks see it, uint8.

        Raises:
            RuntimeError: There is no package.
        """
        if self._package is None:
            raise RuntimeError("There is no package to measure with.")
        from implant_model.classifier import measure

        classifier = self._opened(self._package)
        with self._lock:
            _, features_NF = measure(classifier.networks, image_HW[None])
        return np.asarray(features_NF[0], np.float32)

    def _opened(self, package: ModelPackage) -> "Classifier":
        from implant_model.classifier import Classifier

        with self._lock:
            if self._classifier is None:
                self._classifier = Classifier(package)
            return self._classifier
