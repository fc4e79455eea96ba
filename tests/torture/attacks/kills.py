"""Attacks on publication: the job is killed at each request that it makes to the store."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from tests.support.fault_proxy import Fault, Lose
from tests.torture.attacks.runs import Run
from tests.torture.attacks.stage import Stage, kill
from tests.torture.tally import Tally

KILLED: Final = -9
POINTS: Final = 3
"""Of the quick form."""


def kill_at_each_request(stage: Stage, *, thorough: bool = False) -> Tally:
    """`kill -9` at each request, before and after its effect; then a run that is left alone."""
    tally = Tally("job killed at each request, then run again")
    expected, requests = stage.alone
    count = len(requests)
    for number in range(count) if thorough else spread(count, POINTS):
        for after in (False, True) if thorough else (number % 2 == 1,):
            run: list[Run] = []
            output = stage.new_output()
            stage.proxy.reset()
            stage.proxy.add(Fault("*", "", Lose(after, partial(kill, run)), skip=number))
            run.append(stage.start(output))
            ended = run[0].end()
            case = f"request {number}, {'after' if after else 'before'} its effect"
            # A request fewer than in the reference, as of the lease's thread, and none was killed.
            survived = ended.code == 0 and bool(stage.proxy.unused())
            tally.check(f"{case}, killed", ended.code == KILLED or survived, ended.code)
            stage.check_after(tally, case, output, expected)
    tally.note = f"{count} requests a run"
    return tally


def spread(count: int, points: int) -> Sequence[int]:
    """So many of the numbers below `count`, evenly."""
    return sorted({round(i * (count - 1) / (points - 1)) for i in range(points)})
