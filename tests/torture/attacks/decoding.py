"""Attacks on decoding: every case through the decoding process, as a worker of the job does it."""

import resource
from pathlib import Path

from implant_model.archives.read import is_clutter
from implant_model.decode.decoded import Prepared
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import Reason
from implant_model.limits import GIB, Limits
from tests.support.archive_samples import read
from tests.torture.cases import catalogue
from tests.torture.tally import Tally

SIZE_PX = 64
CAP_BYTES = GIB
"""What a decoding process may hold at most of memory: a member and its picture at their limits."""
READER_ROOM_BYTES = GIB
"""By how much reading any archive may raise the memory of the process that reads it."""


def torture_members(*, thorough: bool = False) -> Tally:
    """Each member's case gets the reason in its name, or a picture."""
    tally, peak = Tally("members, each in the decoding process"), 0
    with DecodeProcess(Preprocessing(size_px=SIZE_PX), Limits()) as process:
        for case in catalogue.members(thorough=thorough):
            data = case.make()
            prepared = process.prepare(data)
            clutter = case.inside and is_clutter(case.name)
            tally.equal(case.name, Reason.CLUTTER if clutter else prepared.reason, case.reason)
            if process.pid is not None:
                peak = max(peak, peak_bytes(process.pid))
    tally.check("memory", peak < CAP_BYTES, f"{peak:,} bytes")
    tally.note = f"largest decoding process {peak / 1e6:,.0f} MB"
    return tally


def torture_archives(*, thorough: bool = False) -> Tally:
    """Each archive's case gets its status and reason, and each of its members its own."""
    tally = Tally("archives, each member by member")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with DecodeProcess(Preprocessing(size_px=SIZE_PX), Limits()) as process:
        for case in catalogue.archives(thorough=thorough):
            reading = read(case.make())
            rows = tuple(
                member.reason if member.data is None else process.prepare(member.data).reason
                for member in reading.members
            )
            tally.equal(case.name, (rows[:20], reading.reason), (case.rows[:20], case.reason))
            tally.equal(f"{case.name}, members", len(rows), len(case.rows))
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    tally.check("memory", grown < READER_ROOM_BYTES, f"grew by {grown:,} bytes")
    tally.note = f"the reader grew by {grown / 1e6:,.0f} MB"
    return tally


def torture_shipped() -> Tally:
    """Each file of pydicom's and each member of Python's test archives gets one answer."""
    tally = Tally("files of pydicom, archives of Python's tests")
    with DecodeProcess(Preprocessing(size_px=SIZE_PX), Limits()) as process:
        for name, data in catalogue.pydicom_files():
            tally.check(name, is_one_answer(process.prepare(data)))
        for name, data in catalogue.python_archives():
            for member in read(data).members:
                answer = None if member.data is None else process.prepare(member.data)
                tally.check(f"{name} {member.index}", answer is None or is_one_answer(answer))
    return tally


def is_one_answer(prepared: Prepared) -> bool:
    """Whether there is a picture or a reason that is no crash, and not both."""
    crashed = prepared.reason in (Reason.DECODER_CRASHED, Reason.DECODER_TIMEOUT)
    return (prepared.image is None) == (prepared.reason is not None) and not crashed


def peak_bytes(pid: int) -> int:
    """The most memory that a process has held."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 0
