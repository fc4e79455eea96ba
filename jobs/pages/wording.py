"""What outcomes, reasons and statuses mean, in plain words: one sentence for each of the sets."""

from collections.abc import Mapping
from typing import Final

from implant_model.errors import ArchiveReason, ArchiveStatus, Outcome, Reason

OUTCOMES: Final[Mapping[Outcome, str]] = {
    Outcome.IDENTIFIED: "One candidate is left.",
    Outcome.AMBIGUOUS: "More than one candidate is left.",
    Outcome.UNKNOWN: "It looks like none of the model's implants.",
    Outcome.REJECTED: "It is no picture that the model may see; the reasons are below.",
    Outcome.IGNORED: "A file that archives carry by habit, such as DICOMDIR or .DS_Store.",
}

REASONS: Final[Mapping[Reason, str]] = {
    Reason.EMPTY: "It has no bytes.",
    Reason.NOT_AN_IMAGE: "It is neither DICOM nor PNG nor JPEG.",
    Reason.NON_IMAGE_OBJECT: "A DICOM object without a picture of its own, such as a report.",
    Reason.NOT_A_RADIOGRAPH: "A picture of another kind, such as a CT slice.",
    Reason.UNSUPPORTED_ENCODING: "Its compression or image format is not read.",
    Reason.TRUNCATED: "It ends too early.",
    Reason.CORRUPT: "Its bytes are damaged.",
    Reason.TOO_LARGE: "It is beyond the limits on size and memory.",
    Reason.BAD_PIXELS: "Its pixels show nothing: constant, or senseless.",
    Reason.MULTI_FRAME: "It has several frames.",
    Reason.DECODER_CRASHED: "The decoding process died of it.",
    Reason.DECODER_TIMEOUT: "Decoding took too long.",
    Reason.NESTED_ARCHIVE: "An archive inside the archive; it is not opened.",
    Reason.NOT_REGULAR: "A link or a device, not a file.",
    Reason.ENCRYPTED: "It is encrypted.",
    Reason.CLUTTER: "A file that archives carry by habit.",
}

REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.EMPTY: "Export the picture again.",
    Reason.NON_IMAGE_OBJECT: "Leave reports and the like out of the export, or pass them over.",
    Reason.NOT_A_RADIOGRAPH: "Choose CR, DX and RG in the export.",
    Reason.UNSUPPORTED_ENCODING: "Export as uncompressed DICOM, JPEG 2000, JPEG-LS or RLE.",
    Reason.TRUNCATED: "Copy the archive again from its source.",
    Reason.CORRUPT: "Copy the archive again from its source; if that is damaged, export it anew.",
    Reason.MULTI_FRAME: "Export the frames one by one.",
    Reason.DECODER_CRASHED: "Report the file's maker and transfer syntax.",
    Reason.DECODER_TIMEOUT: "Run again with --retry decoder_timeout when the machine is less busy.",
    Reason.NESTED_ARCHIVE: "Unpack it and send its members.",
    Reason.NOT_REGULAR: "Pack the file that the link leads to.",
    Reason.ENCRYPTED: "Pack it without a password.",
}
"""What mends a rejection; nothing does where there is no line."""

STATUSES: Final[Mapping[ArchiveStatus, str]] = {
    ArchiveStatus.COMPLETE: "Read to its proven end.",
    ArchiveStatus.SALVAGED: "Not whole; the members that could be read have rows.",
    ArchiveStatus.FAILED: "Nothing of it could be read.",
    ArchiveStatus.CHANGED: "Replaced while it was read; the next run reads the new version.",
}

ARCHIVE_REASONS: Final[Mapping[ArchiveReason, str]] = {
    ArchiveReason.TRUNCATED: "It ends too early: copy it again from its source.",
    ArchiveReason.CORRUPT: "Its bytes are damaged: copy it again from its source.",
    ArchiveReason.ENCRYPTED: "It is encrypted: store it without a password.",
    ArchiveReason.UNSUPPORTED: "An archive of a kind that is not read, or beyond the limits.",
    ArchiveReason.ACCESS_DENIED: "The credentials at hand do not give access to it.",
    ArchiveReason.NOT_FOUND: "It was not there.",
    ArchiveReason.CHANGED: "It was replaced while it was read: run again.",
    ArchiveReason.STORAGE_ERROR: "The store did not answer: run again.",
}


def novelty_on_scale(novelty: float, threshold: float) -> str:
    """Return a novelty score by its package's threshold, since the number itself has no scale."""
    side = "above it" if novelty > threshold else "not above it"
    if threshold > 0 <= novelty:
        return f"{100 * novelty / threshold:,.0f} % of the threshold, {side}"
    return f"{novelty:,.1f} against a threshold of {threshold:,.1f}, {side}"


def novelty_sentence(novelty: float, threshold: float, known_pass_rate: float) -> str:
    """Return what a novelty score means, for people.

    Args:
        novelty: The score.
        threshold: The package's.
        known_pass_rate: Share of known implants that the threshold was set to let pass.
    """
    passed = f"{100 * known_pass_rate:.0f} %"
    meaning = "no sign of an implant that the model does not know"
    if novelty > threshold:
        meaning = "it looks like none of the model's implants"
    return (
        f"Novelty: {novelty_on_scale(novelty, threshold)}: {meaning}. The threshold is set so that "
        f"{passed} of radiographs of known implants are not above it."
    )
