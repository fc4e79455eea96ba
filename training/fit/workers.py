"""How many processes fit one network: a fixed number, or as many as a cluster has room for."""

from typing import NamedTuple

from implant_model.errors import UsageError


class Workers(NamedTuple):
    """Bounds on the processes that fit one network.

    Attributes:
        least: With fewer the training waits.
        most: More are not asked for. Where it is over `least`, a training begins with as many as
            there is room for, goes on with fewer from its last checkpoint where a node is lost, and
            with more where one joins; how many there were decides the last digits of its weights.
    """

    least: int
    most: int

    @property
    def is_elastic(self) -> bool:
        """Whether their number may change during a training."""
        return self.least < self.most

    def at_most(self, useful: int) -> "Workers":
        """Return bounds none of which is over `useful`."""
        return Workers(min(self.least, useful), min(self.most, useful))

    def to_json(self) -> int | str:
        """Return what a training's record holds: N, or `MIN:MAX`."""
        return str(self) if self.is_elastic else self.most

    def __str__(self) -> str:
        return f"{self.least}:{self.most}" if self.is_elastic else str(self.most)


def read_workers(text: str) -> Workers:
    """Read `N` or `MIN:MAX`.

    Raises:
        UsageError: It is neither, or not 1 <= MIN <= MAX.
    """
    least, colon, most = text.partition(":")
    try:
        workers = Workers(int(least), int(most if colon else least))
    except ValueError:
        workers = Workers(0, 0)
    if not 1 <= workers.least <= workers.most:
        raise UsageError(f"--workers is {text!r}; accepted is N or MIN:MAX with 1 <= MIN <= MAX.")
    return workers
