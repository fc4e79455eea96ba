"""The closed sets of outcomes and reasons, and the one tree of errors.

    ImplantError
    ├── UsageError           the call or its set-up is wrong: one sentence, exit code 2
    │   └── PackageError     a model package that is missing, damaged or not understood
    ├── BusyError            another run holds the output: exit code 75
    ├── StorageError         an object that cannot be read or written (`reason`: ArchiveReason)
    │   ├── NotFoundError    it is not there
    │   ├── AccessDeniedError  it may not be read or written with these credentials
    │   └── ChangedError     it is no longer the version that was planned
    ├── ArchiveError         an archive that cannot be read to its proven end (`reason`)
    └── MemberError          a member that no classifier may see (`reason`: Reason)

Messages are whole sentences that say what, which archive or member, the value met, what is accepted
and what to do. A message of a MemberError or ArchiveError never holds a value out of the file: the
file may be a patient's. The enumerations are those of the tables, see docs/outputs.md.
"""

from enum import StrEnum
from typing import Final

LINUX_ONLY: Final = (
    "This software runs on Linux alone: its decoding process needs memfd and /proc. Use a Linux "
    "machine, a container, or WSL 2."
)


class Outcome(StrEnum):
    """What became of one member; column `outcome` of the predictions."""

    IDENTIFIED = "identified"
    AMBIGUOUS = "ambiguous"
    UNKNOWN = "unknown"
    REJECTED = "rejected"
    IGNORED = "ignored"


class Doubt(StrEnum):
    """Why a picture may not look as radiographs do; column `doubts` of the predictions. Closed."""

    FOR_PROCESSING = "for_processing"
    POLARITY = "polarity"


class Reason(StrEnum):
    """Why a member was rejected or ignored; column `reason` of the predictions. Closed."""

    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    NON_IMAGE_OBJECT = "non_image_object"
    NOT_A_RADIOGRAPH = "not_a_radiograph"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    BAD_PIXELS = "bad_pixels"
    MULTI_FRAME = "multi_frame"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    NESTED_ARCHIVE = "nested_archive"
    NOT_REGULAR = "not_regular"
    ENCRYPTED = "encrypted"
    CLUTTER = "clutter"


class ArchiveReason(StrEnum):
    """Why an archive is not `complete`; column `reason` of the archives. Closed."""

    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    ENCRYPTED = "encrypted"
    UNSUPPORTED = "unsupported"
    ACCESS_DENIED = "access_denied"
    NOT_FOUND = "not_found"
    CHANGED = "changed"
    STORAGE_ERROR = "storage_error"


TRANSIENT: Final = frozenset(
    {
        ArchiveReason.ACCESS_DENIED,
        ArchiveReason.NOT_FOUND,
        ArchiveReason.CHANGED,
        ArchiveReason.STORAGE_ERROR,
    }
)
"""Reasons that lie outside the archive's bytes: the next run, or training, tries again."""


class ArchiveStatus(StrEnum):
    """What became of one archive; column `status` of the archives.

    `salvaged`: not whole, but some of its members were read. `failed`: nothing of it was read.
    `changed`: it was replaced while it was read; the next run reads the new version.
    """

    COMPLETE = "complete"
    SALVAGED = "salvaged"
    FAILED = "failed"
    CHANGED = "changed"

    @property
    def is_readable(self) -> bool:
        """Return whether the archive's members were read, so that they have rows."""
        return self in (ArchiveStatus.COMPLETE, ArchiveStatus.SALVAGED)


class ImplantError(Exception):
    """Root of every error that this project raises on purpose."""


class UsageError(ImplantError):
    """The call or its set-up is wrong; nothing was written. Exit code 2."""


class PackageError(UsageError):
    """A model package that is missing, damaged or not understood."""


class BusyError(ImplantError):
    """Another run holds the output; try again later. Exit code 75."""


class StorageError(ImplantError):
    """An object could not be read or written, after the retries that its store deserves."""

    reason = ArchiveReason.STORAGE_ERROR


class NotFoundError(StorageError):
    """There is no such object, bucket, file or folder."""

    reason = ArchiveReason.NOT_FOUND


class AccessDeniedError(StorageError):
    """The credentials at hand do not give access to the object."""

    reason = ArchiveReason.ACCESS_DENIED


class ChangedError(StorageError):
    """The object is no longer the version that was planned."""

    reason = ArchiveReason.CHANGED


class ArchiveError(ImplantError):
    """An archive could not be read to its proven end.

    Args:
        reason: What to write in the archive's row.
        message: A sentence without any value out of the archive's members.
    """

    def __init__(self, reason: ArchiveReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ArchiveError"], tuple[ArchiveReason, str]]:
        return type(self), (self.reason, str(self))


class MemberError(ImplantError):
    """A member holds no picture that a radiograph's classifier may see.

    Args:
        reason: What to write in the member's row.
        message: A sentence without any value out of the file.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["MemberError"], tuple[Reason, str]]:
        return type(self), (self.reason, str(self))
