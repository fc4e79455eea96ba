"""The model of bundles: several archives whose rows share files, and wrong variants of it.

`Bundling.run` follows `PublishBlock`, `Tables._enter_units` and `ArchiveRows.enter` for archives
of one unit. A file is the set of what it holds, (archive, version); a run deals what it reads to
files as chance has it, and commits any part of it at a time, as the job does when it is due.
"""

import random
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tests.torture.protocol.play import Play, broken, play_right, play_wrong
from tests.torture.protocol.world import Violation
from tests.torture.tally import Tally

NUM_ARCHIVES: Final = 3
Key = tuple[int, int]
"""An archive and its version."""
Held = frozenset[Key]
"""What a file holds."""
Files = frozenset[str]
Steps = Generator[Callable[[], Any], Any, Any]


@dataclass
class Shared:
    """All that outlives a run; `source` is here the versions of all archives.

    Attributes:
        sources: Versions of the archives now; None while one is deleted.
        newest: The highest versions so far.
        objects: Files by name.
        predictions: Number of commits of that table, and its files.
        archives: The same of the other table, and its rows: versions by archive.
        went_back: Archives of which an older version was put back.
    """

    sources: list[int | None] = field(default_factory=lambda: [1] * NUM_ARCHIVES)
    newest: list[int] = field(default_factory=lambda: [1] * NUM_ARCHIVES)
    objects: dict[str, Held] = field(default_factory=dict)
    predictions: tuple[int, Files] = (0, frozenset())
    archives: tuple[int, dict[int, int]] = (0, {})
    went_back: set[int] = field(default_factory=set)

    def rows(self, files: Files | None = None) -> list[Key]:
        """The keys whose rows a reader sees."""
        found = self.predictions[1] if files is None else files
        return [key for name in found for key in self.objects[name]]

    def put(self, name: str, held: Held) -> Held:
        """Creates a file unless it is there; returns what is there."""
        return self.objects.setdefault(name, held)

    def commit_predictions(self, seen: int, files: Files) -> bool:
        """The next commit, unless another came after the state that was seen."""
        if seen != self.predictions[0]:
            return False
        before, after = dict(self.rows()), self.rows(files)
        if not before.keys() <= dict(after).keys():
            raise Violation("rows that were published vanished")
        for archive, version in after:
            if archive not in self.went_back and version < before.get(archive, 0):
                raise Violation("rows of a newer version made way for an older one's")
        self.predictions = seen + 1, files
        return True

    def commit_archives(self, seen: int, rows: dict[int, int]) -> bool:
        """The same for the other table."""
        if seen != self.archives[0]:
            return False
        self.archives = seen + 1, rows
        return True

    def check(self) -> None:
        """What holds for a reader at every moment."""
        rows = self.rows()
        if len(rows) > len(dict(rows)):
            raise Violation("a reader sees an archive twice")
        if not self.archives[1].keys() <= dict(rows).keys():
            raise Violation("an archive is said to be read and has no rows")

    def check_quiet(self) -> None:
        """What holds once every run came to its end."""
        if dict(self.rows()) != self.archives[1]:
            raise Violation("the two tables do not agree")

    def check_end(self) -> None:
        """What holds after one more run that nobody disturbed."""
        rows = dict(self.rows())
        for archive, version in enumerate(self.sources):
            if version is not None and rows.get(archive) != version:
                raise Violation("an archive's newest version is not in the tables")
            if version is not None and self.archives[1].get(archive) != version:
                raise Violation("the two tables do not agree")


@dataclass
class Bundling:
    """One run.

    Attributes:
        world: What it works on.
        run_id: Identity of the run.
    """

    world: Shared
    run_id: int
    copies: int = 0

    def run(self) -> Steps:
        """Plan, read into bundles, publish part by part."""
        chance = random.Random(self.run_id)
        todo = list((yield self.plan))
        chance.shuffle(todo)
        results: list[tuple[Key, str]] = []
        while todo:
            count = chance.randint(1, len(todo))
            block, todo = todo[:count], todo[count:]
            whole = []
            for key in block:
                if (yield partial(self.is_that, key)):
                    whole.append(key)
            name = "+".join(f"{archive}.{version}" for archive, version in sorted(whole))
            if whole:
                yield partial(self.world.put, name, frozenset(whole))
                results += [(key, name) for key in whole]
        while results:
            count = chance.randint(1, len(results))
            part, results = dict(results[:count]), results[count:]
            standing = yield from self.enter_units(part)
            yield from self.enter_rows(standing)

    def plan(self) -> list[Key]:
        """The versions to read: those that the two tables do not have."""
        there, rows = set(self.world.rows()), self.world.archives[1]
        return [
            (archive, version)
            for archive, version in enumerate(self.world.sources)
            if version is not None
            and not (rows.get(archive) == version and (archive, version) in there)
        ]

    def is_that(self, key: Key) -> bool:
        """Whether the archive is still that version."""
        return self.world.sources[key[0]] == key[1]

    def enter_units(self, part: dict[Key, str]) -> Steps:
        """One commit that leaves of each archive exactly what was read; returns what stands."""
        while True:
            number, files = yield lambda: self.world.predictions
            there = dict(self.world.rows(files))
            standing = []
            for key in part:
                is_other = there.get(key[0], key[1]) != key[1]
                if not is_other or (yield partial(self.is_that, key)):
                    standing.append(key)
            after = yield from self.exchanged(files, {key: part[key] for key in standing})
            if after == files or (yield partial(self.world.commit_predictions, number, after)):
                return standing

    def exchanged(self, files: Files, part: dict[Key, str]) -> Steps:
        """The files of the table after the commit."""
        kept, entering = set(files), {archive for archive, _ in part}
        for name in sorted(files - set(part.values())):
            held = self.world.objects[name]
            others = frozenset(key for key in held if key[0] not in entering)
            if others != held:
                kept.discard(name)
                kept |= yield from self.copy(others)
        for name in sorted(set(part.values()) - files):
            kept |= yield from self.entered(name, [key for key in part if part[key] == name])
        return frozenset(kept)

    def entered(self, name: str, keys: Iterable[Key]) -> Steps:
        """The file of some archives: their bundle, or a copy of it with them alone."""
        wanted = frozenset(keys)
        if self.world.objects[name] == wanted:
            return {name}
        return (yield from self.copy(wanted))

    def copy(self, held: Held) -> Steps:
        """A copy with some of a file's archives."""
        if not held:
            return set()
        self.copies += 1
        name = f"copy {self.run_id} {self.copies}"
        yield partial(self.world.put, name, held)
        return {name}

    def enter_rows(self, standing: list[Key]) -> Steps:
        """One commit of the archives' rows, of those that are still in the other table."""
        while True:
            number, rows = yield lambda: self.world.archives
            active = yield from self.still_active(standing)
            if not active or (
                yield partial(self.world.commit_archives, number, {**rows, **dict(active)})
            ):
                return

    def still_active(self, standing: list[Key]) -> Steps:
        """Those whose rows are there, in whichever file."""
        there = yield self.world.rows
        return [key for key in standing if key in there]


class WholeBundle(Bundling):
    """A bundle enters with all that it holds, whatever the commit speaks of."""

    def entered(self, name: str, keys: Iterable[Key]) -> Steps:
        yield lambda: None
        return {name}


class NothingTakenOut(Bundling):
    """Rows of the old version stay in the files that they share."""

    def exchanged(self, files: Files, part: dict[Key, str]) -> Steps:
        kept = set(files)
        for name in sorted(set(part.values()) - files):
            kept |= yield from self.entered(name, [key for key in part if part[key] == name])
        return frozenset(kept)


class NeighboursLost(Bundling):
    """A shared file leaves with all that it holds."""

    def copy(self, held: Held) -> Steps:
        yield lambda: None
        return set()


class TrustedRow(Bundling):
    """A row of the other table alone shows that an archive is done."""

    def plan(self) -> list[Key]:
        rows = self.world.archives[1]
        return [
            (archive, version)
            for archive, version in enumerate(self.world.sources)
            if version is not None and rows.get(archive) != version
        ]


class ActiveByName(Bundling):
    """A file that another run has copied is taken for rows that are gone."""

    def still_active(self, standing: list[Key]) -> Steps:
        _, files = yield lambda: self.world.predictions
        bundles = [
            held for name in files if "copy" not in name for held in self.world.objects[name]
        ]
        return [key for key in standing if key in bundles]


class RowsWithoutLook(Bundling):
    """The rows are written without a look at what the other table has by then."""

    def still_active(self, standing: list[Key]) -> Steps:
        yield lambda: None
        return standing


class LateWins(Bundling):
    """A late result of an old version takes the new one's place."""

    def is_that(self, key: Key) -> bool:
        return True


class BlindExchange(Bundling):
    """A commit goes ahead whatever came in between."""

    def enter_units(self, part: dict[Key, str]) -> Steps:
        _, files = yield lambda: self.world.predictions
        after = yield from self.exchanged(files, part)

        def write() -> bool:
            number, now = self.world.predictions
            return self.world.commit_predictions(number, now - (files - after) | (after - files))

        yield write
        return list(part)


WRONG: tuple[type[Bundling], ...] = (
    WholeBundle,
    NothingTakenOut,
    NeighboursLost,
    TrustedRow,
    ActiveByName,
    RowsWithoutLook,
    LateWins,
    BlindExchange,
)


class BundlePlay(Play):
    """One schedule of runs that bundle."""

    def replace_archive(self) -> None:
        """A new version of one archive, none, or an older one again."""
        world: Any = self.world
        archive, kind = self.rng.randrange(NUM_ARCHIVES), self.rng.random()
        if kind < 0.5:
            world.newest[archive] += 1
            world.sources[archive] = world.newest[archive]
        elif kind < 0.65:
            world.sources[archive] = None
        else:
            world.sources[archive] = self.rng.randint(1, world.newest[archive])
            if world.sources[archive] < world.newest[archive]:
                world.went_back.add(archive)


def violation(protocol: type[Bundling], seed: int) -> str | None:
    """What a schedule showed to be broken, if anything."""
    play: Any = BundlePlay
    return broken(play(protocol, random.Random(seed), world=Shared()))


def play_bundles(*, thorough: bool = False) -> Tally:
    """Schedules of bundling as it is."""
    name = "random schedules of the bundles' model"
    return play_right(name, Bundling, violation, thorough=thorough)


def play_wrong_bundles(*, thorough: bool = False) -> Tally:
    """Each wrong variant must be caught by one of these schedules."""
    name = "wrong variants of bundling, caught"
    return play_wrong(name, WRONG, violation, thorough=thorough)
