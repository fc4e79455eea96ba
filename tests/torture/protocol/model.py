"""A model of publication that runs: the steps of a run between its requests, and wrong variants.

`Protocol.run` follows `jobs.pipeline`: `make_plan`, `read_archive`, `publish_unit`,
`Tables._enter_units`, `ArchiveRows.enter`. It yields each request to the store; `protocol_play`
decides what becomes of it. Each subclass in `MUTANTS` leaves out or misplaces one thing, and each
must be caught: a model that lets a known mistake pass proves nothing.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.torture.protocol.world import UNIT, Content, Path, Row, World, members_of, versions

Request = Callable[[], Any]
Steps = Generator[Request, Any, Any]


class Changed(Exception):
    """The store no longer has the version that was asked for."""


@dataclass
class Protocol:
    """One run.

    Attributes:
        world: What it works on.
        run_id: Identity of the run.
    """

    world: World
    run_id: int

    def run(self) -> Steps:
        """Plan, read, publish."""
        planned = yield from self.plan()
        if planned is None:
            return
        version, attempt = planned
        try:
            units = yield from self.read(version, attempt)
        except Changed:
            units = ()
        yield from self.publish(Row(version, attempt, units))

    def publish(self, row: Row) -> Steps:
        """The units enter one table, then the row the other."""
        if row.units:
            row = yield from self.enter_units(row)
        yield from self.enter_row(row)

    def plan(self) -> Steps:
        """The version to read and the attempt; None where the tables have it."""
        version = yield lambda: self.world.source
        archives = yield lambda: self.world.archives
        predictions = yield lambda: self.world.predictions
        if version is None:
            return None
        record = next((row for row in archives.rows if row.version == version), None)
        if record is None:
            return version, 0
        if not record.units:
            return version, record.attempt + 1
        if self.has_rows(record, predictions.files):
            return None
        return version, record.attempt

    def has_rows(self, record: Row, files: frozenset[Path]) -> bool:
        """Whether the rows that a record speaks of are in the table."""
        return {path for path, _ in record.units} <= files

    def read(self, version: int, attempt: int) -> Steps:
        """Reads member by member and publishes unit by unit."""
        members, units = list(members_of(version)), []
        for first in range(0, len(members), UNIT):
            path = (version, attempt, first)
            adopted = yield partial(self.exists, path)
            found = []
            for index in range(first, min(first + UNIT, len(members))):
                found.append((yield partial(self.get, version, index)))
            unit = Content(tuple(found), self.run_id)
            content = yield from self.publish_unit(path, unit, adopted)
            units.append((path, content))
        return tuple(units)

    def exists(self, path: Path) -> bool:
        """Whether a unit is published."""
        return path in self.world.objects

    def get(self, version: int, index: int) -> tuple[int, int]:
        """One member, if the archive is still that version (`If-Match`)."""
        if self.world.source != version:
            raise Changed
        return version, index

    def publish_unit(self, path: Path, unit: Content, adopted: bool) -> Steps:
        """Puts a unit, or reads and checks the one that is there; returns what is published."""
        if not adopted and (yield lambda: self.put(path, unit)):
            return unit
        there = yield lambda: self.world.objects[path]
        if there.members != unit.members:
            raise Changed
        return there

    def put(self, path: Path, unit: Content) -> bool:
        """Creates the file unless it is there (`If-None-Match: *`)."""
        return self.world.objects.setdefault(path, unit) is unit

    def enter_units(self, row: Row) -> Steps:
        """One commit that leaves exactly these units of the archive."""
        wanted = frozenset(path for path, _ in row.units)
        while True:
            seen = yield lambda: self.world.predictions
            others = versions(seen.files) - {row.version}
            if others and (yield lambda: self.world.source) != row.version:
                return Row(row.version, row.attempt, ())
            if seen.files == wanted:
                return row
            files = self.exchanged(seen.files, wanted)
            if (yield partial(self.world.commit_predictions, seen.number, files)):
                return row

    def exchanged(self, held: frozenset[Path], wanted: frozenset[Path]) -> frozenset[Path]:
        """The files of the table after the commit."""
        return wanted

    def enter_row(self, row: Row) -> Steps:
        """One commit of the archive's row, in place of those that it makes void."""
        while True:
            seen = yield lambda: self.world.archives
            row = yield from self.still_active(row)
            same = [held for held in seen.rows if held.version == row.version]
            if not row.units and any(held.units for held in same):
                return
            kept = () if row.units else tuple(r for r in seen.rows if r not in same)
            rows = (*kept, row)
            if (yield partial(self.world.commit_archives, seen.number, rows)):
                return

    def still_active(self, row: Row) -> Steps:
        """The row, without its units if another run has replaced them since."""
        predictions = yield lambda: self.world.predictions
        active = {path for path, _ in row.units} <= predictions.files
        return row if active else Row(row.version, row.attempt, ())


class UnconditionalPut(Protocol):
    """A unit's file is written over the one that is there."""

    def put(self, path: Path, unit: Content) -> bool:
        self.world.objects[path] = unit
        return True


class ReadWithoutVersion(Protocol):
    """The archive is read as it is at the moment."""

    def get(self, version: int, index: int) -> tuple[int, int]:
        if self.world.source is None:
            raise Changed
        return self.world.source, index


class NoAdoptCheck(Protocol):
    """'Already there' is taken for 'this is what I have written'."""

    def publish_unit(self, path: Path, unit: Content, adopted: bool) -> Steps:
        if not adopted:
            yield lambda: self.put(path, unit)
        return unit


class PublishByListing(Protocol):
    """What the folder holds is what is published."""

    def exchanged(self, held: frozenset[Path], wanted: frozenset[Path]) -> frozenset[Path]:
        return frozenset(self.world.objects)


class BlindAdd(Protocol):
    """The old version's files are not taken out."""

    def exchanged(self, held: frozenset[Path], wanted: frozenset[Path]) -> frozenset[Path]:
        return held | wanted


class TwoCommits(Protocol):
    """The old version's files are taken out in a commit of their own."""

    def enter_units(self, row: Row) -> Steps:
        seen = yield lambda: self.world.predictions
        if versions(seen.files) - {row.version}:
            yield lambda: self.world.commit_predictions(seen.number, frozenset())
        return (yield from super().enter_units(row))


class UnitByUnit(Protocol):
    """Each unit enters the table by itself."""

    def enter_units(self, row: Row) -> Steps:
        for count in range(1, len(row.units)):
            part = yield from super().enter_units(Row(row.version, row.attempt, row.units[:count]))
            if not part.units:
                return part
        return (yield from super().enter_units(row))


class EarlyCleanUp(Protocol):
    """The old version's files are deleted before the commit that takes them out."""

    def exchanged(self, held: frozenset[Path], wanted: frozenset[Path]) -> frozenset[Path]:
        for path in held - wanted:
            self.world.objects.pop(path, None)
        return wanted


class LateCleanUp(Protocol):
    """Files that no table names are deleted when a run has ended; another one may need them."""

    def publish(self, row: Row) -> Steps:
        yield from super().publish(row)
        active = (yield lambda: self.world.predictions).files
        for path in set(self.world.objects) - active:
            yield partial(self.world.objects.pop, path, None)


class BlindCommit(Protocol):
    """A commit goes ahead whatever came in between."""

    def enter_units(self, row: Row) -> Steps:
        wanted = frozenset(path for path, _ in row.units)
        seen = yield lambda: self.world.predictions
        others = versions(seen.files) - {row.version}
        if others and (yield lambda: self.world.source) != row.version:
            return Row(row.version, row.attempt, ())
        gone = seen.files - wanted

        def write() -> bool:
            now = self.world.predictions
            return self.world.commit_predictions(now.number, now.files - gone | wanted)

        yield write
        return row


class NoOvertakenCheck(Protocol):
    """A late result of an old version takes the new one's place."""

    def enter_units(self, row: Row) -> Steps:
        wanted = frozenset(path for path, _ in row.units)
        while True:
            seen = yield lambda: self.world.predictions
            if (yield partial(self.world.commit_predictions, seen.number, wanted)):
                return row


class RowWithoutLook(Protocol):
    """The row is written without a look at what the other table has by then."""

    def still_active(self, row: Row) -> Steps:
        yield lambda: None
        return row


class RowFirst(Protocol):
    """The archive's row is written before its units are in their table."""

    def publish(self, row: Row) -> Steps:
        yield from RowWithoutLook.enter_row(RowWithoutLook(self.world, self.run_id), row)
        if row.units:
            yield from self.enter_units(row)


class TrustedRecord(Protocol):
    """A record alone shows that an archive is done, whatever the other table has."""

    def has_rows(self, record: Row, files: frozenset[Path]) -> bool:
        return True


MUTANTS: tuple[type[Protocol], ...] = (
    UnconditionalPut,
    ReadWithoutVersion,
    NoAdoptCheck,
    PublishByListing,
    BlindAdd,
    TwoCommits,
    UnitByUnit,
    EarlyCleanUp,
    LateCleanUp,
    BlindCommit,
    NoOvertakenCheck,
    RowWithoutLook,
    RowFirst,
    TrustedRecord,
)
