"""The world of the model: a store, two tables, an archive that is replaced; and what must hold.

Nothing here is the product's code: it is what the product's code relies on. An archive's version is
a number; its members are (version, index). A unit's file is its members and the run that made it,
since two runs need not compute the same floats.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

UNIT: Final = 2
"""Members of a unit."""

Path = tuple[int, int, int]
"""Version, attempt and first member of a unit."""
Member = tuple[int, int]


@dataclass(frozen=True)
class Content:
    """A unit's file: its members, and who made it."""

    members: tuple[Member, ...]
    made_by: int


@dataclass(frozen=True)
class Row:
    """A row of the table `archives`; `units` is empty where nothing could be read."""

    version: int
    attempt: int
    units: tuple[tuple[Path, Content], ...]


@dataclass(frozen=True)
class Predictions:
    """A state of the table `predictions`: its files; `number` counts commits."""

    number: int = 0
    files: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Archives:
    """A state of the table `archives`."""

    number: int = 0
    rows: tuple[Row, ...] = ()


class Violation(Exception):
    """Something that was promised does not hold."""


@dataclass
class World:
    """All that outlives a run.

    Attributes:
        source: The archive's version now; None while it is deleted.
        newest: The highest version so far.
        objects: Unit files.
        predictions: Newest state of that table.
        archives: Newest state of that table.
        went_back: Whether an older version of the archive was put back.
    """

    source: int | None = 1
    newest: int = 1
    objects: dict[Path, Content] = field(default_factory=dict)
    predictions: Predictions = field(default_factory=Predictions)
    archives: Archives = field(default_factory=Archives)
    went_back: bool = False

    def commit_predictions(self, seen: int, files: frozenset[Path]) -> bool:
        """The next commit, unless another one came after the state that was seen."""
        if seen != self.predictions.number:
            return False
        self.check_change(files)
        self.predictions = Predictions(seen + 1, files)
        return True

    def commit_archives(self, seen: int, rows: tuple[Row, ...]) -> bool:
        """The same for the other table."""
        if seen != self.archives.number:
            return False
        self.archives = Archives(seen + 1, rows)
        return True

    def check_change(self, files: frozenset[Path]) -> None:
        """What holds between two states of `predictions`."""
        before, after = versions(self.predictions.files), versions(files)
        if before and not after:
            raise Violation("rows that were published vanished")
        if not self.went_back and before and max(after) < max(before):
            raise Violation("rows of a newer version made way for an older one's")

    def check(self) -> None:
        """What holds for a reader at every moment."""
        files = self.predictions.files
        if len(versions(files)) > 1:
            raise Violation("a reader sees two versions of an archive")
        if len({attempt for _, attempt, _ in files}) > 1:
            raise Violation("a reader sees two attempts at an archive")
        members: list[Member] = []
        for path in sorted(files):
            if path not in self.objects:
                raise Violation("a file of the table is not there")
            members += self.objects[path].members
        if files and members != list(members_of(next(iter(files))[0])):
            raise Violation("a reader sees an archive that is not whole, or rows that are double")
        for row in self.archives.rows:
            self._check_row(row)

    def _check_row(self, row: Row) -> None:
        for path, content in row.units:
            if self.objects.get(path) != content:
                raise Violation("a published file is not the one that its archive's row names")
        if row.units and not self.predictions.files:
            raise Violation("an archive is said to be read and has no rows")

    def check_quiet(self) -> None:
        """What holds once every run came to its end."""
        rows = [row for row in self.archives.rows if row.units]
        if len(rows) > 1:
            raise Violation("an archive has two rows with units")
        said = frozenset(path for row in rows for path, _ in row.units)
        if said != self.predictions.files:
            raise Violation("the two tables do not agree")

    def check_end(self) -> None:
        """What holds after one more run that nobody disturbed.

        Unless the archive is gone by then: what a run that died has left between the two tables is
        mended by reading the archive. Until it is back, `verify` names its rows.
        """
        if self.source is None:
            return
        self.check_quiet()
        if versions(self.predictions.files) != {self.source}:
            raise Violation("the archive's newest version is not in the tables")


def members_of(version: int) -> Iterator[Member]:
    """The members of a version: 1 to 5 of them."""
    return ((version, index) for index in range(1 + version % 5))


def versions(files: frozenset[Path]) -> set[int]:
    """Versions of the archive that files belong to."""
    return {version for version, _, _ in files}
