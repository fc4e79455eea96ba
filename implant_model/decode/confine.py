"""Confines the calling process: what an exploited decoder may still do is to decode.

Three parts of Linux, each by a few calls over ctypes. Packages were looked at and left: pyseccomp
needs libseccomp of the system and has had no release since 2021, the bindings of Landlock are
development releases, and what is used of both is one filter and one rule set.

- The process gives up root for an account without rights, and can gain none by any program.
- Landlock (Linux 5.13, ABI 1 and newer): of the file system only what Python imports from may be
  read; nothing may be written, run, bound, connected to or signalled.
- seccomp: a short list of system calls. All others (socket, connect, execve, clone, ptrace,
  process_vm_readv, kill, ...) fail with EPERM. Without Landlock files cannot be opened either.

Numbers are those of linux/audit.h, filter.h, seccomp.h and landlock.h.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from implant_model.errors import UsageError

NOBODY: Final = 65534
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_SECCOMP, _LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = {
    "x86_64": (317, 444, 445, 446),
    "aarch64": (277, 444, 445, 446),
}.get(platform.machine(), (0, 444, 445, 446))
_SET_MODE_FILTER, _GET_ACTION_AVAIL, _ALL_THREADS = 1, 2, 1
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM: Final = 1
_ARCHITECTURE: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT: Final = 0x40000000
_LANDLOCK_VERSION: Final = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# File rights that each ABI of Landlock added: all that it knows is handled, and so forbidden.
_FILE_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}

_CALLS: Final = {  # name: number on x86_64, on aarch64; None where there is none
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, None),
    "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172), "sendto": (44, 206),
    "recvfrom": (45, 207), "exit": (60, 93), "uname": (63, 160), "gettimeofday": (96, 169),
    "getrlimit": (97, 163), "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153),
    "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "sigaltstack": (131, 132), "setrlimit": (160, 164), "gettid": (186, 178), "futex": (202, 98),
    "sched_getaffinity": (204, 123), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "set_robust_list": (273, 99),
    "ppoll": (271, 73), "getrandom": (318, 278), "membarrier": (324, 283), "rseq": (334, 293),
}  # fmt: skip
_FILE_CALLS: Final = {
    "open": (2, None), "stat": (4, None), "lstat": (6, None), "access": (21, None),
    "getcwd": (79, 17), "readlink": (89, None), "getdents64": (217, 61), "openat": (257, 56),
    "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48), "statx": (332, 291),
    "faccessat2": (439, 439),
}  # fmt: skip
# Allowed with one value of one argument (its number, the value) alone.
_PRLIMIT: Final = ((302, 261), 0, 0)  # limits of the caller itself, by process 0
_FCNTL: Final = ((72, 25), 1, 1030)  # F_DUPFD_CLOEXEC, by which Python maps a file


@dataclass(frozen=True)
class Confinement:
    """What of the sandbox is in force, or can be on this machine.

    Attributes:
        seccomp: System calls are limited.
        landlock: ABI of Landlock; 0 where the kernel has none.
        account: The process is not root.
    """

    seccomp: bool
    landlock: int
    account: bool

    @property
    def is_whole(self) -> bool:
        """Whether no part is missing."""
        return self.seccomp and self.landlock > 0 and self.account

    @property
    def missing(self) -> str:
        """Return the missing parts as a clause; empty where there are none."""
        parts = [
            "" if self.seccomp else "no limit on system calls (seccomp)",
            "" if self.landlock else "no limit on the file system (Landlock, Linux 5.13 or newer)",
            "" if self.account else "no account of its own (it runs as root)",
        ]
        return ", ".join(filter(None, parts))


def require_whole(confinement: Confinement) -> None:
    """Refuse a sandbox that lacks a part.

    Raises:
        UsageError: Which part this machine lacks.
    """
    if not confinement.is_whole:
        raise UsageError(
            f"--require-sandbox: on {platform.node()} the decoder's sandbox has "
            f"{confinement.missing}. Use a machine whose kernel has it, or leave the option out."
        )


def available() -> Confinement:
    """Return what this machine can confine a decoder by; change nothing."""
    action = ctypes.c_uint32(_ERRNO)
    has_filter = platform.machine() in _ARCHITECTURE and not _call(
        _SECCOMP, _GET_ACTION_AVAIL, 0, ctypes.byref(action)
    )
    return Confinement(has_filter, max(_landlock_abi(), 0), account=True)


def confine(readable: Iterable[Path]) -> Confinement:
    """Give up all that decoding does not need; there is no way back.

    Args:
        readable: Folders that modules and libraries are loaded from: they may still be read.

    Returns:
        What is in force.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    account = _leave_root()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    abi = _restrict_files(readable)
    return Confinement(_restrict_calls(with_files=abi > 0), abi, account)


def _leave_root() -> bool:
    """Become nobody where the process is root; return whether it is not root."""
    if os.geteuid() != 0:
        return True
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        return False  # a container without CAP_SETUID
    return True


def _landlock_abi() -> int:
    return _call(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)


def _restrict_files(readable: Iterable[Path]) -> int:
    """Leave reading below some folders; return the ABI that is in force, 0 for none."""
    abi = _landlock_abi()
    if abi < 1:
        return 0
    files = _FILE_RIGHTS[max(known for known in _FILE_RIGHTS if known <= abi)]
    network = 0b11 if abi >= 4 else 0  # bind and connect by TCP
    scoped = 0b11 if abi >= 6 else 0  # abstract sockets and signals
    words = (files, network, scoped)[: 1 + (abi >= 4) + (abi >= 6)]
    attributes = struct.pack(f"{len(words)}Q", *words)
    rules = _call(_LANDLOCK_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return 0
    try:
        for folder in readable:
            _allow_reading(rules, folder)
        return 0 if _call(_LANDLOCK_RESTRICT, rules, 0) else abi
    finally:
        os.close(rules)


def _allow_reading(rules: int, folder: Path) -> None:
    try:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | (_READ_DIR if folder.is_dir() else 0)
        _call(_LANDLOCK_ADD, rules, 1, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)


def _restrict_calls(*, with_files: bool) -> bool:
    """Install the filter of system calls; return whether it is in force."""
    machine = platform.machine()
    if machine not in _ARCHITECTURE:
        return False
    place = ["x86_64", "aarch64"].index(machine)
    calls = _CALLS | (_FILE_CALLS if with_files else {})
    numbers = sorted(n for n in (pair[place] for pair in calls.values()) if n is not None)
    checked = [(pair[place], argument, value) for pair, argument, value in (_PRLIMIT, _FCNTL)]
    program = _filter(_ARCHITECTURE[machine], numbers, checked)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return not _call(_SECCOMP, _SET_MODE_FILTER, _ALL_THREADS, header)


def _filter(architecture: int, numbers: list[int], checked: list[tuple[int, int, int]]) -> bytes:
    """Return the filter's program.

    Args:
        architecture: Any other ends the process.
        numbers: Calls that are allowed.
        checked: Calls that are allowed if an argument, by its place, has a value: both of 32 bits.
    """

    def step(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, true, false, k)

    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    tests = [
        (step(equal, number, 0, 5), step(load, 16 + 8 * place), step(equal, value, 0, 3),
         step(load, 20 + 8 * place), step(equal, 0, 0, 1), step(answer, _ALLOW))
        for number, place, value in checked
    ]  # fmt: skip
    middle = b"".join(b"".join((*test, step(load, 0))) for test in tests)
    to_allow = len(numbers) + len(middle) // 8 + 1
    return b"".join(
        (
            step(load, 4),
            step(equal, architecture, 1, 0),
            step(answer, _KILL),
            step(load, 0),
            step(at_least, _X32_BIT, 0, 1),
            step(answer, _KILL),
            *(step(equal, number, to_allow - 1 - i) for i, number in enumerate(numbers)),
            middle,
            step(answer, _ERRNO | _EPERM),
            step(answer, _ALLOW),
        )
    )


def _call(number: int, *arguments: object) -> int:
    """Return what a system call returns, -1 where it fails."""
    if sys.platform != "linux" or not number:
        return -1
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(number, *arguments))
