"""The decoding process: what it may not do, and what its end costs."""

import contextlib
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from implant_model.decode import sandbox
from implant_model.decode.prepare import decode, picture_of
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import (
    DecodeProcess,
    _checked_header,
    _checked_shape,
    _ChildLost,
)
from implant_model.errors import Reason
from implant_model.limits import MIB, Limits
from tests.support.dicom_edits import dataset, dicom, picture, to_bytes
from tests.support.paths import ROOT
from tests.support.pictures import encoded

SPEC = Preprocessing(size_px=64)
GOOD = dicom(picture())


def slow() -> bytes:
    """An RLE frame of 100 million PackBits no-operations: some 10 s of work."""
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x80" * 100_000_000
    return to_bytes(dataset(picture(bits=8).astype(np.uint8)), "1.2.840.10008.1.2.5", frame)


@pytest.fixture(scope="module")
def slow_member() -> bytes:
    return slow()


@pytest.fixture
def process() -> Iterator[DecodeProcess]:
    with DecodeProcess(SPEC, Limits()) as started:
        started.start()
        yield started


def pid_of(process: DecodeProcess) -> int:
    assert process.pid is not None
    return process.pid


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that waits for its parent to ask has."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state in "ZX"
    return True


def ends(pid: int) -> bool:
    """Whether a process ends, which a busy machine may let wait."""
    deadline = time.monotonic() + 60
    while not is_gone(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_gone(pid)


def test_same_as_in_the_callers_process(process: DecodeProcess) -> None:
    for data in (
        GOOD,
        encoded(picture(), compress_level=1),
        encoded(picture(700, 900), compress_level=1),
    ):
        prepared = process.prepare(data)
        here = picture_of(data, SPEC, Limits())
        assert prepared.image is not None
        np.testing.assert_array_equal(prepared.image, here.image)
        assert prepared.header == here.header
        assert prepared.reason is None


def test_picture_in_its_own_size_and_depth(process: DecodeProcess) -> None:
    """Larger than the member and than the memory file, between two that are prepared."""
    large = encoded(np.zeros((4000, 3000), np.uint8) + np.arange(3000).astype(np.uint8))
    for member in (GOOD, large, encoded(picture(bits=16).astype(np.uint16)), GOOD):
        process.prepare(GOOD)
        seen, same = process.decode(member), decode(member, Limits())
        assert seen.reason is same.reason is None
        assert seen.header == same.header
        assert seen.pixels_HW is not None
        assert same.pixels_HW is not None
        assert seen.pixels_HW.dtype == same.pixels_HW.dtype
        np.testing.assert_array_equal(seen.pixels_HW, same.pixels_HW)
        assert process.prepare(GOOD).image is not None
    assert process.decode(b"").reason is Reason.EMPTY
    assert process.decode(GOOD[:3000]).reason is Reason.TRUNCATED


def test_death_in_a_full_decode_costs_one_member(slow_member: bytes) -> None:
    with DecodeProcess(SPEC, Limits(decode_seconds=1)) as process:
        assert process.decode(slow_member).reason is Reason.DECODER_TIMEOUT
        assert process.decode(GOOD).reason is None


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"shape": [4], "bits": 8},
        {"shape": [4, -4], "bits": 8},
        {"shape": [4.0, 4], "bits": 8},
        {"shape": [4, 4], "bits": 32},
        {"shape": [1 << 20, 1 << 20], "bits": 16},
    ],
)
def test_shape_that_a_fooled_child_announces_is_checked(reply: dict[str, Any]) -> None:
    with pytest.raises(_ChildLost):
        _checked_shape(reply, Limits())


def test_reasons_come_through(process: DecodeProcess) -> None:
    flat = dicom(np.full((96, 80), 700, np.uint16))
    expected = {
        b"": Reason.EMPTY,
        b"no picture": Reason.NOT_AN_IMAGE,
        GOOD[:-500]: Reason.TRUNCATED,
        dicom(picture(), Modality="CT"): Reason.NOT_A_RADIOGRAPH,
        flat: Reason.BAD_PIXELS,
    }
    for data, reason in expected.items():
        prepared = process.prepare(data)
        assert prepared.reason is reason
        assert prepared.image is None
    assert process.prepare(flat).header.patient == "PAT-17"


def test_a_hundred_members_go_through_one_child(process: DecodeProcess) -> None:
    pid = pid_of(process)
    reference = process.prepare(GOOD).image
    for number in range(100):
        process.prepare(GOOD[: 100 * number])
        image = process.prepare(GOOD).image
        np.testing.assert_array_equal(image, reference)
    assert process.pid == pid


def test_images_do_not_share_memory(process: DecodeProcess) -> None:
    first = process.prepare(GOOD).image
    assert first is not None
    kept = first.copy()
    process.prepare(encoded(picture()[::-1].copy(), compress_level=1))
    np.testing.assert_array_equal(first, kept)


def test_a_member_larger_than_the_memory_file(process: DecodeProcess) -> None:
    noise = np.random.default_rng(1).integers(0, 65536, (2600, 2400), dtype=np.uint16)
    data = encoded(noise, compress_level=1)
    assert len(data) > 9 * MIB
    assert process.prepare(data).reason is None
    assert process.prepare(GOOD).reason is None


def test_a_member_in_the_shared_memory_needs_no_copy(process: DecodeProcess) -> None:
    large = dicom(picture(1500, 1200))
    for data in (GOOD, large, GOOD):
        room = process.allocate(len(data))
        room[:] = data
        found, copied = process.prepare(room), process.prepare(data)
        assert found.header == copied.header
        np.testing.assert_array_equal(found.image, copied.image)


def test_what_was_allocated_of_a_child_that_died_is_copied_to_the_next(
    process: DecodeProcess,
) -> None:
    room = process.allocate(len(GOOD))
    room[:] = GOOD
    os.kill(pid_of(process), signal.SIGKILL)
    while not is_gone(pid_of(process)):
        time.sleep(0.01)
    assert process.prepare(room).image is not None


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, Reason.DECODER_CRASHED),
        (signal.SIGSEGV, Reason.DECODER_CRASHED),
        (signal.SIGXCPU, Reason.DECODER_TIMEOUT),
    ],
)
def test_death_costs_one_member(
    process: DecodeProcess, slow_member: bytes, number: int, reason: Reason
) -> None:
    first = pid_of(process)
    killer = threading.Timer(1.0, os.kill, (first, number))
    killer.start()
    assert process.prepare(slow_member).reason is reason
    killer.join()
    assert is_gone(first)
    assert process.prepare(GOOD).reason is None
    assert process.pid != first


def test_a_child_that_died_between_members_is_replaced(process: DecodeProcess) -> None:
    os.kill(child := pid_of(process), signal.SIGKILL)
    assert ends(child)
    assert process.prepare(GOOD).reason is None


def test_a_timeout_costs_one_member(slow_member: bytes) -> None:
    with DecodeProcess(SPEC, Limits(decode_seconds=1)) as process:
        process.start()
        first = pid_of(process)
        assert process.prepare(slow_member).reason is Reason.DECODER_TIMEOUT
        assert is_gone(first)
        assert process.prepare(GOOD).reason is None


def test_time_without_a_core_is_not_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox._kept_waiting_s(os.getpid()) > 0
    assert sandbox._kept_waiting_s(2**30) == 0  # there is no such process
    with DecodeProcess(SPEC, Limits(decode_seconds=1)) as process:
        process.start()
        child = pid_of(process)
        begun = time.monotonic()
        # As on a machine whose cores others hold: the child is stopped, and for the first two
        # seconds Linux states that it was ready to run.
        monkeypatch.setattr(
            sandbox, "_kept_waiting_s", lambda pid: min(2.0, time.monotonic() - begun)
        )
        os.kill(child, signal.SIGSTOP)
        threading.Timer(2.5, os.kill, (child, signal.SIGCONT)).start()
        assert process.prepare(GOOD).reason is None
        assert process.pid == child
        os.kill(child, signal.SIGSTOP)
        assert process.prepare(GOOD).reason is Reason.DECODER_TIMEOUT


def test_memory_is_limited() -> None:
    large = encoded(np.zeros((6000, 6000), np.uint16), compress_level=1)
    with DecodeProcess(SPEC, Limits(decode_bytes=64 * MIB)) as process:
        assert process.prepare(large).reason is Reason.TOO_LARGE
        first = pid_of(process)
        assert process.prepare(GOOD).reason is None
        assert process.pid == first
    with DecodeProcess(SPEC, Limits()) as process:
        assert process.prepare(large).reason is Reason.BAD_PIXELS


def test_the_child_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "IMPLANT_KEY_FILE", "HTTPS_PROXY")
    for name in secrets:
        monkeypatch.setenv(name, "hush-hush")
    with DecodeProcess(SPEC, Limits()) as process:
        process.start()
        proc = Path(f"/proc/{pid_of(process)}")
        environment = proc.joinpath("environ").read_bytes()
        assert b"PYTHONPATH" in environment
        assert b"hush-hush" not in environment
        assert not any(name.encode() in environment for name in secrets)
        files = {link.name: os.readlink(link) for link in proc.joinpath("fd").iterdir()}
        assert {files.pop(number) for number in "012"} == {"/dev/null"}
        assert sorted(name.partition(":")[0] for name in files.values()) == ["/memfd", "socket"]


def test_the_child_is_limited_and_light(process: DecodeProcess) -> None:
    process.prepare(GOOD)
    proc = Path(f"/proc/{pid_of(process)}")
    limits = {
        line[:26].strip(): line[26:].split()[:2]
        for line in proc.joinpath("limits").read_text().splitlines()[1:]
    }
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == ["0", "0"]
    assert limits["Max open files"] == ["32", "32"]
    assert int(limits["Max address space"][1]) < Limits().decode_bytes + (4 << 30)
    assert int(limits["Max cpu time"][0]) <= Limits().decode_seconds + 60
    assert os.getpgid(pid_of(process)) == pid_of(process)
    maps = proc.joinpath("maps").read_text()
    assert "libtorch" not in maps
    assert "_raylet" not in maps


def test_close_ends_the_child_and_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    process = DecodeProcess(SPEC, Limits())
    assert process.prepare(GOOD).reason is None
    pid = pid_of(process)
    process.close()
    process.close()
    assert is_gone(pid)
    assert process.pid is None
    assert len(os.listdir("/proc/self/fd")) == before
    assert process.prepare(GOOD).reason is None
    process.close()


def test_the_child_ends_with_its_parent() -> None:
    program = (
        "import os\n"
        "from implant_model.limits import Limits\n"
        "from implant_model.decode.preprocess import Preprocessing\n"
        "from implant_model.decode.sandbox import DecodeProcess\n"
        "process = DecodeProcess(Preprocessing(), Limits())\n"
        "process.start()\n"
        "os.write(1, str(process.pid).encode())\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert ends(int(done.stdout))


@pytest.mark.parametrize(
    "values",
    [
        {"rows": "9"},
        {"rows": -1},
        {"rows": True},
        {"columns": 2**40},
        {"frame": None},
        {"patient": 5},
        {"modality": ["CR"]},
    ],
)
def test_what_a_fooled_child_says_is_checked(values: dict[str, Any]) -> None:
    assert _checked_header({"rows": 9, "patient": "x"}).rows == 9
    with pytest.raises(ValueError, match="impossible"):
        _checked_header(values)
    with pytest.raises(TypeError):
        _checked_header({"surname": "x"})
    with pytest.raises(ValueError, match="DOE"):
        _checked_header({"doubts": ["DOE^JANE"]})
