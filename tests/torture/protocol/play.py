"""Plays the model with random schedules: crashes, lost replies, pauses, replaced archives."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from tests.torture.protocol.model import MUTANTS, Changed, Protocol, Steps
from tests.torture.protocol.world import Violation, World
from tests.torture.tally import Tally

MAX_STEPS: Final = 100
MAX_RUNS: Final = 3
"""Runs at the same time."""


@dataclass
class Live:
    """A run under way: its steps, and what its last request was answered."""

    steps: Steps
    reply: Any = None
    error: Exception | None = None


@dataclass
class Play:
    """One schedule.

    Attributes:
        protocol: What each run does.
        rng: Decides everything, also how often each thing happens in this schedule.
    """

    protocol: type[Protocol]
    rng: random.Random
    world: World = field(default_factory=World)
    live: list[Live] = field(default_factory=list)
    crashed: bool = False
    numbers: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.crashes = self.rng.choice((0.0, 0.0, 0.01, 0.03))
        self.replacements = self.rng.choice((0.01, 0.02, 0.05))
        self.losses = self.rng.choice((0.0, 0.05, 0.15))
        self.patience = self.rng.choice((1, 2, 4))

    def play(self) -> None:
        """Disturbs the runs, lets them end, and runs once more undisturbed; raises Violation."""
        for _ in range(MAX_STEPS):
            self.disturb()
            self.world.check()
        while self.live:
            self.advance(self.rng.choice(self.live))
            self.world.check()
        if not self.crashed:
            self.world.check_quiet()
        self.start()
        while self.live:
            self.advance(self.live[0])
            self.world.check()
        self.world.check_end()

    def disturb(self) -> None:
        """One step of one run, or something that happens to it or to the archive."""
        kind = self.rng.random()
        if not self.live or (kind < 0.05 and len(self.live) < MAX_RUNS):
            self.start()
        elif (kind := kind - 0.05) < self.replacements:
            self.replace_archive()
        elif (kind := kind - self.replacements) < self.crashes:
            self.live.remove(self.rng.choice(self.live))
            self.crashed = True
        else:  # the first ones are favoured: the last one pauses for long
            place = min(self.rng.randrange(MAX_RUNS * self.patience), len(self.live) - 1)
            self.advance(self.live[-1 - place], lost=kind - self.crashes < self.losses)

    def start(self) -> None:
        self.live.append(Live(self.protocol(self.world, next(self.numbers)).run()))
        self.rng.shuffle(self.live)

    def replace_archive(self) -> None:
        """A new version, none, or an older one again."""
        kind = self.rng.random()
        if kind < 0.5:
            self.world.newest += 1
            self.world.source = self.world.newest
        elif kind < 0.65:
            self.world.source = None
        else:
            self.world.source = self.rng.randint(1, self.world.newest)
            self.world.went_back |= self.world.source < self.world.newest

    def advance(self, run: Live, lost: bool = False) -> None:
        """Lets a run take its reply and send its next request; a lost reply is asked for again."""
        try:
            request = run.steps.send(run.reply) if run.error is None else run.steps.throw(run.error)
        except (StopIteration, Changed):
            self.live.remove(run)
            return
        for _ in range(2 if lost else 1):
            run.reply, run.error = None, None
            try:
                run.reply = request()
            except (Changed, KeyError) as error:
                run.error = Changed() if isinstance(error, KeyError) else error


Violated = Callable[[Any, int], str | None]
"""A protocol and a seed to what that schedule showed to be broken, if anything."""


def broken(play: Play) -> str | None:
    """What a schedule showed to be broken, if anything."""
    try:
        play.play()
    except Violation as found:
        return str(found)
    return None


def violation(protocol: type[Protocol], seed: int) -> str | None:
    """What a schedule showed to be broken, if anything."""
    return broken(Play(protocol, random.Random(seed)))


def play_right(name: str, protocol: type, violated: Violated, *, thorough: bool) -> Tally:
    """Schedules of a protocol as it is."""
    tally = Tally(name)
    for seed in range(100_000 if thorough else 1_500):
        found = violated(protocol, seed)
        tally.check(f"seed {seed}", found is None, found)
    return tally


def play_wrong(name: str, wrong: Sequence[type], violated: Violated, *, thorough: bool) -> Tally:
    """Each wrong variant must be caught by one of these schedules."""
    tally = Tally(name)
    slowest = 0
    for variant in wrong:
        seeds = range(100_000 if thorough else 10_000)
        found = next((seed for seed in seeds if violated(variant, seed)), None)
        tally.check(variant.__name__, found is not None, "no schedule shows that it is wrong")
        slowest = max(slowest, found or 0)
    tally.note = f"at most {slowest + 1:,} schedules for one"
    return tally


def play_protocol(*, thorough: bool = False) -> Tally:
    """Schedules of the protocol as it is."""
    name = "random schedules of the publication's model"
    return play_right(name, Protocol, violation, thorough=thorough)


def play_mutants(*, thorough: bool = False) -> Tally:
    """Each wrong variant must be caught by one of these schedules."""
    name = "wrong variants of the protocol, caught"
    return play_wrong(name, MUTANTS, violation, thorough=thorough)
