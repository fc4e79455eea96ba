"""The catalogue's MR-safety notes by study: what the makers say, with the source, never a guess.

A note is given where the images agree with a record that means implants of one and the same note.
Anything else is 'not known', with the reason.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from implant_model.package.catalogue import Catalogue, Implant
from jobs.auditing.registry.claims import Claims
from jobs.auditing.verdicts import Verdict, Verdicts

NOT_KNOWN: Final = "not known"


class Gap(IntEnum):
    """Why nothing is known of a study's implant in a magnetic field; 0 where a note is given."""

    NONE = 0
    NO_NOTE = 1
    NO_AGREEMENT = 2


GAPS: Final = {
    Gap.NO_NOTE: "The catalogue has no note of the implant, or different ones of those it may be.",
    Gap.NO_AGREEMENT: "Record and images do not agree on an implant of the catalogue.",
}


@dataclass(frozen=True)
class Safety:
    """Notes by record.

    Attributes:
        note_M: Index into `notes`; -1 where it is not known, or the record has no image.
        gap_M: `Gap` of each record with an image.
        has_image_M: Whether the record has one: only then it is listed.
        notes: Note and source of each.
    """

    note_M: npt.NDArray[np.int32]
    gap_M: npt.NDArray[np.int8]
    has_image_M: npt.NDArray[np.bool_]
    notes: tuple[tuple[str, str], ...]


def safety_notes(catalogue: Catalogue, claims: Claims, verdicts: Verdicts) -> Safety:
    """Find the note of each record's implant."""
    notes: dict[tuple[str, str], int] = {}
    note_K = [_note(implant, notes) for implant in catalogue]
    note_C = np.full(len(claims.sets) + 1, -1, np.int32)
    for place, claim in enumerate(claims.sets):
        said = {note_K[index] for index in claim}
        note_C[place] = said.pop() if len(said) == 1 else -1
    agrees_M = verdicts.verdict_M == Verdict.AGREES
    note_M = np.where(agrees_M, note_C[claims.claim_M], -1).astype(np.int32)
    gap_M = np.where(agrees_M, Gap.NO_NOTE, Gap.NO_AGREEMENT).astype(np.int8)
    gap_M[note_M >= 0] = Gap.NONE
    return Safety(note_M, gap_M, verdicts.first_image_M >= 0, tuple(notes))


def _note(implant: Implant, notes: dict[tuple[str, str], int]) -> int:
    if implant.mr_safety is None:
        return -1
    return notes.setdefault((implant.mr_safety, implant.mr_safety_source or ""), len(notes))
