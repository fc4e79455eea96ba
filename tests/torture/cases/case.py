"""One case of the torture set: a file or an archive, and what is to become of it."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from implant_model.errors import ArchiveReason, ArchiveStatus, Reason

PREDICTED = "predicted"


@dataclass(frozen=True)
class Case:
    """One member of an archive.

    Attributes:
        number: Its class, see `classes`.
        what: What is wrong with it, in a few words.
        make: Builds its bytes.
        reason: Expected of its row; None: it gets a prediction.
        inside: Its name below a folder of the case's name, for what is known by its name.
        heavy: Whether it takes seconds; the quick form leaves it out.
    """

    number: int
    what: str
    make: Callable[[], bytes]
    reason: Reason | None = None
    inside: str = ""
    heavy: bool = False

    @property
    def name(self) -> str:
        """Class, words and expected outcome: `011-cut-in-an-element.truncated`."""
        name = f"{self.number:03}-{slug(self.what)}.{self.reason or PREDICTED}"
        return f"{name}/{self.inside}" if self.inside else name


@dataclass(frozen=True)
class ArchiveCase:
    """One archive.

    Attributes:
        number: Its class, see `classes`.
        what: What is wrong with it, in a few words.
        make: Builds its bytes.
        rows: Expected of its members, in order: a reason, or None for a prediction.
        reason: Expected of its row in the table `archives`; None: it is complete.
        heavy: Whether it takes seconds; the quick form leaves it out.
    """

    number: int
    what: str
    make: Callable[[], bytes]
    rows: tuple[Reason | None, ...] = ()
    reason: ArchiveReason | None = None
    heavy: bool = False

    @property
    def status(self) -> ArchiveStatus:
        """What is expected of the archive."""
        if self.reason is None:
            return ArchiveStatus.COMPLETE
        return ArchiveStatus.SALVAGED if self.table_rows else ArchiveStatus.FAILED

    @property
    def table_rows(self) -> tuple[Reason | None, ...]:
        """What the job's table holds of its members: none of one that is encrypted throughout."""
        return () if self.reason is ArchiveReason.ENCRYPTED else self.rows

    @property
    def name(self) -> str:
        """Class, words, expected status and reason: `087-tar-cut.salvaged-truncated`."""
        end = "-".join(str(part) for part in (self.status, self.reason) if part)
        return f"{self.number:03}-{slug(self.what)}.{end}"


def slug(text: str) -> str:
    """Words fit for a file name."""
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


def number_of(name: str) -> int:
    """The class of a case, from its name."""
    return int(name[:3])


def reason_in(name: str) -> str | None:
    """The expected reason of a member's case, from its name; None: a prediction."""
    end = name.split("/")[0].rpartition(".")[2]
    return None if end == PREDICTED else end
