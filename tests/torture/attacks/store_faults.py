"""Attacks by the store: every fault on every kind of request, races, archives that change."""

import random
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from jobs.entry.command import BUSY, INCOMPLETE, OK, USAGE
from tests.support.fault_proxy import (
    Action,
    Answer,
    Cut,
    Fault,
    First,
    Flip,
    Hang,
    Ignore,
    Lose,
    Request,
    Shorten,
    Slow,
)
from tests.torture.attacks.runs import Run
from tests.torture.attacks.stage import Stage, Tables, first_archive, read_tables
from tests.torture.cases.files import png
from tests.torture.tally import Tally

FAULTS: Final[dict[str, Action]] = {
    "500": Answer(500, "InternalError"),
    "500 after its effect": Answer(500, "InternalError", after=True),
    "503": Answer(503, "SlowDown"),
    "503 after its effect": Answer(503, "SlowDown", after=True),
    "lost": Lose(after=False),
    "lost after its effect": Lose(after=True),
    "no answer": Hang(after=False, seconds=35),
    "no answer after its effect": Hang(after=True, seconds=35),
    "expired credentials": Answer(400, "ExpiredToken"),
    "access denied": Answer(403, "AccessDenied"),
}
OF_WRITING: Final[dict[str, Action]] = {"409": Answer(409, "ConditionalRequestConflict")}
OF_READING: Final[dict[str, Action]] = {
    "body cut": Cut(20),
    "body short": Shorten(20),
    "body slow": Slow(200, 0.01),
    "bit flipped": Flip(30),
}
_KINDS: Final = (
    ("list", r"list-type"),
    ("archive", r"/in/"),
    ("unit", r"predictions/model"),
    ("log of predictions", r"predictions/_delta_log"),
    ("log of archives", r"archives/_delta_log"),
    ("rows of archives", r"archives/model"),
    ("seal", r"_seals"),
    ("lease", r"_lease"),
    ("probe", r"_probe"),
)
Kind = tuple[str, str, str]
"""Method, what it is about, and the pattern of such targets."""


def fault_on_each_kind(stage: Stage, *, thorough: bool = False) -> Tally:
    """Each fault, once, on each kind of request; then a run that is left alone."""
    tally = Tally("one fault of the store on each kind of request")
    expected, requests = stage.alone
    kinds = sorted({kind_of(request) for request in requests})
    cases = [(kind, name) for kind in kinds for name in faults_of(kind)]
    if not thorough:
        cases = [case for case in cases if not case[1].startswith("no answer")]
        cases = random.Random(0).sample(cases, 3)
    for (method, about, pattern), name in cases:
        output = stage.new_output()
        stage.proxy.reset()
        stage.proxy.add(Fault(method, pattern, faults_of((method, about, pattern))[name]))
        ended = stage.start(output).end()
        case = f"{method} {about}: {name}"
        tally.check(f"{case}, exit code", ended.code in (OK, USAGE, INCOMPLETE), ended.code)
        tally.check(f"{case}, message", "Traceback" not in ended.said, ended.said[-400:])
        stage.check_after(tally, case, output, expected)
    tally.note = f"{len(kinds)} kinds"
    return tally


def kind_of(request: Request) -> Kind:
    """What a request is about."""
    for about, pattern in _KINDS:
        if re.search(pattern, request.target):
            return request.method, about, pattern
    return request.method, "bucket", "/bucket-[0-9]+/?$"


def faults_of(kind: Kind) -> dict[str, Action]:
    """The faults that such a request can meet."""
    more = {"PUT": OF_WRITING, "GET": OF_READING}.get(kind[0], {})
    return {**FAULTS, **more}


def runs_at_once(stage: Stage, *, thorough: bool = False) -> Tally:
    """Two and three runs, the later ones begun at many requests of the first, without a lease."""
    tally = Tally("two and three runs at once, at many offsets")
    expected, requests = stage.alone
    offsets = range(1, len(requests), 2) if thorough else (len(requests) // 3,)
    for number in offsets:
        for others in (1, 2):
            output = stage.new_output()
            later: list[Run] = []
            stage.proxy.reset()

            for more in range(others):
                begin = First(partial(_begin, stage, output, later))
                stage.proxy.add(Fault("*", "", begin, skip=number + 3 * more))
            first = stage.start(output, lease=False)
            codes = [first.end().code, *(run.end().code for run in later)]
            case = f"{others + 1} runs, from request {number}"
            tally.check(f"{case}, exit codes", set(codes) == {OK}, codes)
            stage.check_after(tally, case, output, expected)
    return tally


def _begin(stage: Stage, output: str, later: list[Run]) -> None:
    later.append(stage.start(output, lease=False))


def second_run_is_refused(stage: Stage, *, thorough: bool = False) -> Tally:
    """With the lease, a second run ends with its own code, or begins when the first has ended."""
    tally = Tally("a second run while the first holds the output")
    expected, output = stage.alone[0], stage.new_output()
    later: list[Run] = []
    stage.proxy.reset()
    stage.proxy.add(
        Fault("PUT", "predictions/model", First(lambda: later.append(stage.start(output))))
    )
    codes = [stage.start(output).end().code, *(run.end().code for run in later)]
    tally.check("exit codes", codes[0] == OK and set(codes) <= {OK, BUSY}, codes)
    stage.check_after(tally, "tables", output, expected)
    return tally


def archive_changes(stage: Stage, *, thorough: bool = False) -> Tally:
    """An archive is replaced, deleted or put back at requests of plan, reading and publication.

    Once one with files of its own, once one of those that share a file.
    """
    tally = Tally("archive replaced, deleted or put back during a run")
    older, requests = stage.alone
    count = len(requests)
    for key, content in _CHANGING.items():
        stage.put(key, content(50))
        output = stage.new_output()
        stage.run(output)
        newer = read_tables(output)
        for number in range(1, count, 3) if thorough else (count // 2,):
            for what, change, expected in _changes(stage, key, older, newer):
                stage.put(key, content(0))
                output = stage.new_output()
                stage.proxy.reset()
                for place, call in enumerate(change):
                    stage.proxy.add(Fault("*", "", First(call), skip=number + 4 * place))
                ended = stage.start(output).end()
                case = f"{key} {what} at request {number}"
                tally.check(f"{case}, exit code", ended.code in (OK, INCOMPLETE), ended.said[-300:])
                for call in change:
                    call()  # where the run ended before
                stage.put(key, content(50 if expected is newer else 0))
                stage.check_after(tally, case, output, expected)
        stage.put(key, content(0))
    return tally


_CHANGING: Final[Mapping[str, Callable[[int], bytes]]] = {
    "in/a.tar": first_archive,
    "in/c.png": lambda seed: png(12 + seed),
}


def _changes(
    stage: Stage, key: str, older: Tables, newer: Tables
) -> list[tuple[str, list[Callable[[], None]], Tables]]:
    content = _CHANGING[key]
    replace = partial(stage.put, key, content(50))
    back = partial(stage.put, key, content(0))
    delete = partial(stage.delete, key)
    return [
        ("replaced", [replace], newer),
        ("deleted, later replaced", [delete], newer),
        ("replaced and put back", [replace, back], older),
    ]


def store_that_overwrites(stage: Stage, *, thorough: bool = False) -> Tally:
    """A store that ignores `If-None-Match` is refused before anything is read or written."""
    tally = Tally("store that ignores If-None-Match")
    output = stage.new_output()
    stage.proxy.reset()
    stage.proxy.add(Fault("PUT", "", Ignore("if-none-match"), times=1000))
    ended = stage.start(output).end()
    tally.equal("exit code", ended.code, USAGE)
    tally.check("message", "overwrites objects" in ended.said, ended.said)
    written = [r.target for r in stage.proxy.sent("PUT") if "_probe" not in r.target]
    tally.equal("written", written, [])
    return tally
