"""The reference radiographs that lie nearest to a radiograph, of each implant that may be on it."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from implant_model.errors import UsageError
from implant_model.package.load import ModelPackage
from implant_model.package.references import References
from jobs.reviewing.heat import Heat

SHOWN: Final = 3
"""References of one implant."""


@dataclass(frozen=True)
class Neighbour:
    """A reference beside the radiograph that it is compared with.

    Attributes:
        place: Of the reference in its file.
        distance: Of the embeddings, in the space that novelty is measured in.
        share: The same by the usual distance, see `Neighbours`; None where that is not known.
        source: Where it comes from.
        licence: Of the picture.
    """

    place: int
    distance: float
    share: float | None
    source: str
    licence: str


class Neighbours:
    """Finds neighbours; its methods may be called by several threads.

    Attributes:
        references: What is looked among.
        usual: Median distance of a reference to the nearest other of its implant, which gives
            distances a scale; None where no implant has two.

    Args:
        package: The model's.
        references: Of this package.
        heat: Has the networks at work.
    """

    def __init__(self, package: ModelPackage, references: References, heat: Heat) -> None:
        self.references = references
        self._package = package
        self._heat = heat
        self._space = package.novelty_reference()
        self._placed_RF = self._space.place(references.features_RF)
        self.usual = _usual(self._placed_RF, references.label_R)

    def near(self, image_HW: np.ndarray, names: list[str]) -> dict[str, list[Neighbour]]:
        """Return the nearest references of each implant, nearest first; it may have none.

        Args:
            image_HW: As the networks see it, uint8.
            names: Of implants in the catalogue.
        """
        own_F = self._space.place(self._heat.embedding(image_HW)[None])[0]
        distance_R = np.linalg.norm(self._placed_RF - own_F, axis=1)
        return {name: self._of(self._package.catalogue.index(name), distance_R) for name in names}

    def _of(self, label: int, distance_R: npt.NDArray[np.float64]) -> list[Neighbour]:
        at = np.flatnonzero(self.references.label_R == label)
        nearest = at[np.argsort(distance_R[at], kind="stable")][:SHOWN]
        return [self._neighbour(place, float(distance_R[place])) for place in nearest.tolist()]

    def _neighbour(self, place: int, distance: float) -> Neighbour:
        share = distance / self.usual if self.usual else None
        references = self.references
        return Neighbour(
            place, distance, share, references.sources[place], references.licences[place]
        )

    def picture(self, place: int) -> bytes:
        """Return a reference's PNG.

        Raises:
            UsageError: There is none at this place.
        """
        if not 0 <= place < len(self.references):
            raise UsageError("There is no such reference.")
        return self.references.pictures[place]


def _usual(placed_RF: npt.NDArray[np.float64], label_R: npt.NDArray[np.int64]) -> float | None:
    nearest: list[float] = []
    for label in np.unique(label_R).tolist():
        own_RF = placed_RF[label_R == label]
        for at in range(len(own_RF)):
            others = np.delete(np.linalg.norm(own_RF - own_RF[at], axis=1), at)
            nearest.extend([float(others.min())] if len(others) else [])
    return float(np.median(nearest)) if nearest and np.median(nearest) > 0 else None
