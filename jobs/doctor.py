r"""Is this set-up safe and complete? Finds what would make a run unsafe, wrong or impossible.

    python -m jobs.doctor
    python -m jobs.doctor --address http://HEAD:8265 --output s3://registry/implants --gpu
    ray job submit --address http://HEAD:8265 --working-dir . -- python -m jobs.doctor --gpu

Looks for a Ray that lets anyone in, versions with known vulnerabilities, missing codecs, a spill
folder on a small, shared or memory disk, an output whose store overwrites, and no GPU where one is
asked for. Of a cluster (HOST:PORT, or behind ray job submit) each node is asked, too, for its
versions and the room to spill. Each finding is one sentence with its remedy. Without --address it
looks at the cluster of RAY_ADDRESS, or at this machine. Writes nothing but a small object `_probe`
in --output. Exit codes: 0 nothing was found; 2 the call is wrong; 3 something was.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from implant_model import storage
from jobs.checks.machine import (
    check_bundled,
    check_codecs,
    check_sandbox,
    check_spill_folder,
    check_store,
    check_versions,
)
from jobs.checks.nodes import check_nodes
from jobs.checks.ray_access import NOTHING, check_access, check_gpu, parse_address
from jobs.entry.cluster import check_sockets, temporary_folder
from jobs.entry.command import INCOMPLETE, OK, Parser, run_command, shown

_SPILL = "Ray's temporary folder; default ray/ in RAY_TMPDIR, TMPDIR or /tmp"


@dataclass(frozen=True)
class DoctorOptions:
    """What a user asked of `doctor`.

    Attributes:
        address: Of a job server (`http://HOST:PORT`) or of a cluster (`HOST:PORT`), or None.
        output: Normalised URI of the output that classify is to write, or None.
        spill: Where Ray will put objects that its memory does not hold.
        gpu: Whether a GPU must be there.
    """

    address: str | None
    output: str | None
    spill: str
    gpu: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    options = parse_doctor(arguments)
    findings = list(examine(options))
    for finding in findings:
        print(shown(finding))
    print(f"{len(findings)} findings." if findings else "Nothing was found.")
    return INCOMPLETE if findings else OK


def parse_doctor(arguments: Sequence[str] | None) -> DoctorOptions:
    """Read the command line.

    Raises:
        UsageError: It is not of the contract's form; one sentence explains why.
    """
    parser = Parser("doctor", __doc__)
    add = parser.add_argument
    add("--address", type=parse_address, help="http://HEAD:8265 or HEAD:6379 of a Ray cluster")
    add("--output", type=storage.normalise, metavar="URI", help="the --output of classify")
    add("--spill", metavar="FOLDER", help=_SPILL)
    add("--gpu", action="store_true", help="a GPU is expected: here, or on the cluster HEAD:6379")
    values = vars(parser.parse_args(arguments))
    if values["address"] is None and os.environ.get("RAY_ADDRESS"):
        values["address"] = parse_address(os.environ["RAY_ADDRESS"])
    if values["spill"] is None:
        values["spill"] = os.path.join(temporary_folder(), "ray")
    return DoctorOptions(**values)


def examine(options: DoctorOptions) -> Iterator[str]:
    """Yield the findings of all checks, the cheap ones first."""
    yield from check_versions()
    yield from check_codecs()
    yield from check_bundled()
    yield from check_sandbox()
    if options.address is None and (fault := check_sockets()):
        yield fault
    yield from check_spill_folder(options.spill)
    if options.output is not None:
        yield from check_store(options.output)
    if options.address is not None:
        access = [*check_access(options.address)]
        yield from access
        if not any(finding.startswith(NOTHING) for finding in access):
            yield from check_nodes(options.address)
    if options.gpu:
        yield from check_gpu(options.address)


if __name__ == "__main__":
    run_command("doctor", lambda: main(sys.argv[1:]))
