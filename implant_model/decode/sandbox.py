"""Decodes members in a child process that may crash, hang or be fooled without harm to the caller.

The child (`decode.sandbox_child`) has none of the caller's environment but what Python needs, no
standard streams, limits on memory, CPU time, files and core dumps, and no credentials;
`decode.confine` takes from it the network, the file system, other processes and root. It outlives
its members and is replaced when it dies. Members and pictures travel through one sealed memory file
that both map, the rest as JSON over a socket pair: nothing that a child states is unpickled, and
all of it is checked.
"""

import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from implant_model.decode.confine import Confinement
from implant_model.decode.decoded import Decoded, Header, Prepared
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox_child import LARGEST_MESSAGE
from implant_model.errors import LINUX_ONLY, Doubt, Reason, UsageError
from implant_model.limits import MIB, Limits

START_SECONDS = 60.0  # a cold start from a network disk; 1 s is usual
# Keeps the memory of a picture for the next one: to get 10 MB of fresh pages takes as long as to
# decode them. glibc accepts 32 MiB at most; what is larger goes back to the system at once.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * MIB), "MALLOC_TRIM_THRESHOLD_": str(64 * MIB)}
MIN_WAIT_S = 0.05
PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])


class DecodeProcess:
    """A child process that decodes and preprocesses, one member at a time; use one per thread.

    Args:
        spec: The package's preprocessing.
        limits: Bounds on what is read; `decode_seconds` and `decode_bytes` are kept by the system.
        yields: The child leaves the cores to whoever else wants them; False where a person waits.
    """

    def __init__(self, spec: Preprocessing, limits: Limits, *, yields: bool = True) -> None:
        self._spec = spec
        self._yields = yields
        self._limits = limits
        self._child: _Child | None = None

    def __enter__(self) -> "DecodeProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Return process id of the child; None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def confinement(self) -> Confinement:
        """Return what confines the child, which is started for it.

        Raises:
            RuntimeError: the child cannot even start.
        """
        self.start()
        if self._child is None:
            raise RuntimeError("The decoding process did not start.")
        return self._child.confinement

    def start(self) -> None:
        """Start the child ahead of the first member."""
        if self._child is not None and self._child.is_dead():
            self.close()  # it died between two members, and neither is to blame
        if self._child is None:
            self._child = _Child(self._spec, self._limits, self._yields)

    def allocate(self, size: int) -> memoryview:
        """Return memory that the child sees: a member that is read into it need not be copied.

        What `prepare` returned before stays; what was allocated before may be overwritten.

        Args:
            size: Bytes of the member, as its archive declares them.

        Raises:
            RuntimeError: the child cannot even start.
        """
        self.start()
        if self._child is None or size > self._limits.member_bytes:
            return memoryview(bytearray(size))
        return self._child.allocate(size)

    def prepare(self, data: bytes | memoryview) -> Prepared:
        """Decode and preprocess one member.

        Args:
            data: The member, whole; what `allocate` gave is overwritten.

        Returns:
            The picture or the reason; nothing that the bytes hold raises.

        Raises:
            RuntimeError: the child cannot even start.
        """
        reason = self._refusal(data)
        if reason is not None:
            return Prepared(Header(), None, reason)
        try:
            return self._started().prepare(data)
        except _ChildLost as lost:
            self.close()
            return Prepared(Header(), None, lost.reason)

    def decode(self, data: bytes | memoryview) -> Decoded:
        """Decode one member to its own size and depth, for people to look at.

        Args:
            data: As of `prepare`.

        Returns:
            The picture, display-ready grey, or the reason; nothing that the bytes hold raises.

        Raises:
            RuntimeError: the child cannot even start.
        """
        reason = self._refusal(data)
        if reason is not None:
            return Decoded(Header(), None, reason)
        try:
            return self._started().decode(data)
        except _ChildLost as lost:
            self.close()
            return Decoded(Header(), None, lost.reason)

    def _refusal(self, data: bytes | memoryview) -> Reason | None:
        if not data:
            return Reason.EMPTY
        return Reason.TOO_LARGE if len(data) > self._limits.member_bytes else None

    def _started(self) -> "_Child":
        self.start()
        if self._child is None:
            raise RuntimeError("The decoding process did not start.")
        return self._child

    def close(self) -> None:
        """End the child; the next `prepare` starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.end()


class _ChildLost(Exception):
    """The child died, hung or said something impossible."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class _Child:
    """One child process, its socket and the memory file that is shared with it."""

    def __init__(self, spec: Preprocessing, limits: Limits, yields: bool) -> None:
        if sys.platform != "linux":
            raise UsageError(LINUX_ONLY)
        self._limits = limits
        self._size_px = spec.size_px
        self._memory = os.memfd_create("member", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._room = 0
        self._map: mmap.mmap | None = None
        self._grow(max(MIB, spec.size_px**2))
        _seal_against_shrinking(self._memory)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = _spawn(theirs.fileno(), self._memory)
        self.pid = self._process.pid
        settings = {"spec": spec.to_json(), "limits": asdict(limits), "yields": yields}
        try:
            self._send(settings)
            self.confinement = Confinement(**self._receive(START_SECONDS))
        except (_ChildLost, TypeError) as lost:
            self.end()
            raise RuntimeError("The decoding process ended before it was ready.") from lost

    def allocate(self, size: int) -> memoryview:
        """Return the first `size` bytes of the shared memory."""
        if size > self._room:
            self._grow(size)
        return memoryview(self._shared)[:size]

    def prepare(self, data: bytes | memoryview) -> Prepared:
        """Have one member decoded; raise _ChildLost."""
        return self._prepared(self._ask(data))

    def decode(self, data: bytes | memoryview) -> Decoded:
        """Have one member decoded to its own size and depth; raise _ChildLost."""
        reply = self._ask(data, full=True)
        header, reason = _checked(reply)
        if reason is not None:
            return Decoded(header, None, reason)
        shape, kind = _checked_shape(reply, self._limits)
        num_bytes = shape[0] * shape[1] * kind.itemsize
        self.allocate(num_bytes)
        self._send({"size": 0, "room": self._room, "deliver": True})
        self._receive(float(self._limits.decode_seconds))
        pixels = np.frombuffer(self._shared, kind, shape[0] * shape[1])
        return Decoded(header, pixels.reshape(shape).copy(), None)

    def _ask(self, data: bytes | memoryview, **more: bool) -> Any:
        if not isinstance(data, memoryview) or data.obj is not self._map:
            self.allocate(len(data))[:] = data
        self._send({"size": len(data), "room": self._room, **more})
        return self._receive(float(self._limits.decode_seconds))

    def is_dead(self) -> bool:
        """Return whether the process has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill the child and whatever it started, and give everything back."""
        self._socket.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._map = None
        os.close(self._memory)

    @property
    def _shared(self) -> mmap.mmap:
        if self._map is None:
            raise _ChildLost(Reason.DECODER_CRASHED)
        return self._map

    def _grow(self, size: int) -> None:
        """Make room in whole steps of 8 MiB; the child maps anew when it hears of it."""
        room = -(-size // (8 * MIB)) * 8 * MIB
        os.ftruncate(self._memory, room)
        self._map = mmap.mmap(self._memory, room)  # a member may still lie in the one before
        self._room = room

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.send(json.dumps(message).encode())
        except OSError as error:
            raise _ChildLost(Reason.DECODER_CRASHED) from error

    def _receive(self, timeout_s: float) -> Any:
        try:
            reply = self._wait(timeout_s)
        except TimeoutError as error:
            raise _ChildLost(Reason.DECODER_TIMEOUT) from error
        except OSError as error:
            raise _ChildLost(Reason.DECODER_CRASHED) from error
        if not reply:
            raise _ChildLost(self._reason_of_death())
        try:
            return json.loads(reply)
        except ValueError as error:
            raise _ChildLost(Reason.DECODER_CRASHED) from error

    def _wait(self, timeout_s: float) -> bytes:
        """The next message; time for which the machine had no core for the child does not count.

        Raises:
            TimeoutError: None came.
        """
        begun, kept_waiting_s = time.monotonic(), _kept_waiting_s(self.pid)
        left_s = timeout_s
        while True:
            self._socket.settimeout(left_s)
            try:
                return self._socket.recv(LARGEST_MESSAGE)
            except TimeoutError:
                used_s = time.monotonic() - begun - (_kept_waiting_s(self.pid) - kept_waiting_s)
                left_s = timeout_s - used_s
                if left_s < MIN_WAIT_S:
                    raise

    def _reason_of_death(self) -> Reason:
        """Out of CPU time is a timeout; any other death a crash."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        out_of_time = self._process.returncode == -signal.SIGXCPU
        return Reason.DECODER_TIMEOUT if out_of_time else Reason.DECODER_CRASHED

    def _prepared(self, reply: Any) -> Prepared:
        """Check a reply: a child that was fooled may say anything."""
        header, reason = _checked(reply)
        if reason is not None:
            return Prepared(header, None, reason)
        size = self._size_px
        image = np.frombuffer(self._shared, np.uint8, size * size).reshape(size, size).copy()
        return Prepared(header, image, None)


def _kept_waiting_s(pid: int) -> float:
    """How long a process was ready to run and no core was free; 0 where Linux does not say."""
    try:
        file = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        try:  # for each member: a file object of Python's takes three times as long
            return int(os.read(file, 100).split()[1]) / 1e9
        finally:
            os.close(file)
    except (OSError, IndexError, ValueError):
        return 0.0


def _checked(reply: Any) -> tuple[Header, Reason | None]:
    """Return header and reason of a reply; raise _ChildLost where it is impossible."""
    try:
        reason = None if reply["reason"] is None else Reason(reply["reason"])
        return _checked_header(reply["header"]), reason
    except (KeyError, TypeError, ValueError) as error:
        raise _ChildLost(Reason.DECODER_CRASHED) from error


def _checked_shape(reply: Any, limits: Limits) -> tuple[tuple[int, int], np.dtype[Any]]:
    """Return rows and columns and the type of the pixels that a child announces."""
    try:
        rows, columns = reply["shape"]
        kind: np.dtype[Any] = np.dtype({8: "u1", 16: "<u2"}[reply["bits"]])
        possible = type(rows) is int and type(columns) is int and rows > 0 and columns > 0
        # Pixels that are not square are stretched by up to 4.
        if not possible or rows * columns > 4 * limits.frame_pixels:
            raise ValueError("The shape of the picture is impossible.")
    except (KeyError, TypeError, ValueError) as error:
        raise _ChildLost(Reason.DECODER_CRASHED) from error
    return (rows, columns), kind


def _checked_header(values: dict[str, Any]) -> Header:
    header = Header(**{**values, "doubts": tuple(map(Doubt, values.get("doubts", ())))})
    for field in fields(Header):
        value = getattr(header, field.name)
        if field.name == "doubts" or (value is None and field.name != "frame"):
            continue
        if field.name in ("rows", "columns", "frame"):
            possible = type(value) is int and 0 <= value < 2**31
        else:
            possible = type(value) is str
        if not possible:
            raise ValueError(f"Header.{field.name} of the decoding process is impossible.")
    return header


def _seal_against_shrinking(memory: int) -> None:
    """A child that cut the file would kill the parent by SIGBUS at its next access."""
    import fcntl

    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)


def _spawn(their_socket: int, memory: int) -> "subprocess.Popen[bytes]":
    """Start the child in a process group of its own.

    Not in a session of its own: Linux gives each session an equal share of the cores, so that two
    decoders would take two thirds of them from all of Ray.
    """
    command = [sys.executable, "-P", "-s", "-m", "implant_model.decode.sandbox_child"]
    return subprocess.Popen(
        [*command, str(their_socket), str(memory)],
        env=_environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(their_socket, memory),
        process_group=0,
    )


def _environment() -> dict[str, str]:
    """Return what Python needs to find its modules, one thread a library, and nothing else."""
    paths = [PACKAGE_ROOT, *(path for path in sys.path if os.path.isabs(path))]
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    kept = ("LD_LIBRARY_PATH", "PYTHONHOME", "LANG", "LC_ALL")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return environment | dict.fromkeys(threads, "1") | ALLOCATOR | {
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENCV_LOG_LEVEL": "SILENT",
    }  # fmt: skip
