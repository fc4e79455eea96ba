r"""Attacks each promise and prints one table: cases tried, faults survived, and what failed.

    python -m tests.torture
    python -m tests.torture --quick --only "bits" "killed"
    python -m tests.torture --output s3://bucket/empty-prefix --only "whole job"

The whole job runs below --output, which may be on your own store (the AWS variables apply); what
needs a store that fails runs on a store of its own on this machine. Nothing is deleted. In full it
takes an hour or two on two cores. Exit codes: 0 all survived; 3 something failed.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.fault_proxy import running_fault_proxy
from tests.support.object_store import running_object_store
from tests.support.small_package import save_small_package
from tests.torture.attacks import damage, decoding, flips, kills, store_faults, system, whole_job
from tests.torture.attacks.stage import Stage
from tests.torture.protocol import bundles as protocol_bundles
from tests.torture.protocol import play as protocol_play
from tests.torture.tally import Tally, table

OK, FAILED = 0, 3
Attack = Callable[[], Tally]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, table; returns the exit code."""
    parser = argparse.ArgumentParser(
        "python -m tests.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", metavar="URI", help="where the whole job runs; empty")
    parser.add_argument("--quick", action="store_true", help="the form that the tests run")
    parser.add_argument("--only", nargs="+", default=[""], help="attacks with one of these words")
    options = parser.parse_args(arguments)
    tallies = []
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        for name, attack in attacks(Path(folder), options.output, thorough=not options.quick):
            if any(word in name for word in options.only):
                begun = time.monotonic()
                tally = _outcome(name, attack)
                tallies.append(tally)
                took = f"{len(tally.failures):,} failed, {time.monotonic() - begun:,.0f} s"
                sys.stderr.write(f"{name}: {tally.tried:,} tried, {took}\n")  # if it is cut short
    sys.stdout.write(table(tallies) + "\n")
    return FAILED if any(tally.failures for tally in tallies) else OK


def _outcome(name: str, attack: Attack) -> Tally:
    """What an attack gives; one that breaks has failed, and the others go on."""
    try:
        return attack()
    except Exception as error:
        traceback.print_exc()
        broken = Tally(name)
        broken.check("the attack itself", False, f"{type(error).__name__}: {error}")
        return broken


def attacks(folder: Path, output: str | None, *, thorough: bool) -> Iterator[tuple[str, Attack]]:
    """The attacks in the order of their cost, by what they attack."""
    package = folder / "model"
    save_small_package(package)
    yield "members", partial(decoding.torture_members, thorough=thorough)
    yield "archives", partial(decoding.torture_archives, thorough=thorough)
    yield "shipped files", decoding.torture_shipped
    yield "archives cut", partial(damage.cut_archives, thorough=thorough)
    yield "archives changed", partial(damage.change_bytes, thorough=thorough)
    yield "protocol", partial(protocol_play.play_protocol, thorough=thorough)
    yield "protocol's wrong variants", partial(protocol_play.play_mutants, thorough=thorough)
    yield "bundles", partial(protocol_bundles.play_bundles, thorough=thorough)
    yield "bundles' wrong variants", partial(protocol_bundles.play_wrong_bundles, thorough=thorough)
    yield "bits", partial(flips.flip_bits, folder / "flips", thorough=thorough)
    for name, attack in STAGED.items():
        yield name, partial(_staged, folder, package, partial(attack, thorough=thorough))
    yield "full disk", partial(system.full_disk, folder / "disk", package, thorough=thorough)
    yield "temporary folder", partial(system.no_temporary_folder, folder / "temporary", package)
    root = output or (folder / "job").as_uri()
    yield "whole job", partial(whole_job.torture_job, root, str(package), thorough=thorough)


STAGED: dict[str, Callable[..., Tally]] = {
    "killed": kills.kill_at_each_request,
    "faults": store_faults.fault_on_each_kind,
    "runs at once": store_faults.runs_at_once,
    "second run": store_faults.second_run_is_refused,
    "archive changes": store_faults.archive_changes,
    "store that overwrites": store_faults.store_that_overwrites,
    "SIGTERM": system.terminate_at_requests,
}


def _staged(folder: Path, package: Path, attack: Callable[[Stage], Tally]) -> Tally:
    """Runs an attack on a store of this machine, with a proxy before it."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        running_object_store(Path(place) / "store.log") as store,
        _settings(store.environment),
        running_fault_proxy(store.port) as proxy,
    ):
        return attack(Stage(store, proxy, Path(place), package, store.new_bucket()))


@contextmanager
def _settings(environment: Mapping[str, str]) -> Iterator[None]:
    """Puts other AWS settings in place of this process's, which may be those of --output."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            del os.environ[name]
        os.environ.update(before)


if __name__ == "__main__":
    sys.exit(main())
