"""What code inside the decoding child may do: each attack is run there, and fails.

The attacker's code runs after the child's own preparation, where an exploited codec would run.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from implant_model.decode import confine as module
from implant_model.decode.confine import Confinement, available, require_whole
from implant_model.decode.preprocess import Preprocessing
from implant_model.decode.sandbox import DecodeProcess
from implant_model.errors import UsageError
from implant_model.limits import Limits
from tests.torture.cases.files import png

ROOT = Path(__file__).parents[2]
CHILD = """
import ctypes, json, os, socket, subprocess, sys, threading
from implant_model.decode import sandbox_child as child
from implant_model.decode.preprocess import Preprocessing
from implant_model.limits import Limits
child._worker(Preprocessing(size_px=16), Limits())
child._limit_resources(Limits())
confinement = child._confine()
parent, folder = int(sys.argv[1]), sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
def read(path):
    with open(path, "rb") as file:
        return file.read(64)
def write(path):
    with open(path, "wb") as file:
        file.write(b"x")
def thread():
    worker = threading.Thread(target=lambda: None)
    worker.start()
buffer = ctypes.create_string_buffer(64)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 64)
attacks = {
    "parent's environment": lambda: read(f"/proc/{parent}/environ"),
    "parent's memory file": lambda: read(f"/proc/{parent}/mem"),
    "parent's command": lambda: read(f"/proc/{parent}/cmdline"),
    "own environment file": lambda: read("/proc/self/environ"),
    "process_vm_readv": lambda: call(310, parent, vector, 1, vector, 1, 0),
    "process_vm_writev": lambda: call(311, parent, vector, 1, vector, 1, 0),
    "ptrace": lambda: call(101, 16, parent, 0, 0),
    "pidfd_open": lambda: call(434, parent, 0),
    "pidfd_getfd": lambda: call(438, 0, 0, 0),
    "kcmp": lambda: call(312, os.getpid(), parent, 0, 0, 0),
    "limits of the parent": lambda: call(302, parent, 7, ctypes.byref(ctypes.c_uint64()), None),
    "kill the parent": lambda: os.kill(parent, 15),
    "signal the parent's thread": lambda: call(234, parent, parent, 15),
    "queue a signal": lambda: call(129, parent, 15, buffer),
    "signal by fcntl": lambda: call(72, 1, 8, parent),
    "internet socket": lambda: socket.socket(socket.AF_INET),
    "local socket": lambda: socket.socket(socket.AF_UNIX),
    "netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "socket pair": lambda: socket.socketpair(),
    "connect": lambda: call(42, 1, buffer, 16),
    "execve": lambda: os.execv("/bin/sh", ["sh", "-c", "true"]),
    "shell": lambda: subprocess.run(["/bin/sh", "-c", "true"], check=True),
    "fork": lambda: os.fork(),
    "vfork": lambda: call(58),
    "clone3": lambda: call(435, buffer, 64),
    "thread": thread,
    "read a key": lambda: read(f"{folder}/key"),
    "read /etc/passwd": lambda: read("/etc/passwd"),
    "list the root": lambda: os.listdir("/"),
    "list the home": lambda: os.listdir(os.path.expanduser("~")),
    "write a file": lambda: write(f"{folder}/new"),
    "write over a file": lambda: write(f"{folder}/key"),
    "delete a file": lambda: os.unlink(f"{folder}/key"),
    "rename a file": lambda: os.rename(f"{folder}/key", f"{folder}/other"),
    "link a file": lambda: os.link(f"{folder}/key", f"{folder}/other"),
    "truncate a file": lambda: os.truncate(f"{folder}/key", 0),
    "change a mode": lambda: os.chmod(f"{folder}/key", 0o777),
    "make a folder": lambda: os.mkdir(f"{folder}/new"),
    "temporary file": lambda: write("/tmp/of-the-child"),
    "shared memory": lambda: write("/dev/shm/of-the-child"),
    "memory file": lambda: os.memfd_create("x"),
    "mount": lambda: call(165, buffer, buffer, buffer, 0, 0),
    "chroot": lambda: os.chroot(folder),
    "namespace": lambda: call(272, 0x10000000),
    "root again": lambda: os.setuid(0),
    "io_uring": lambda: call(425, 1, buffer),
    "bpf": lambda: call(321, 0, buffer, 64),
    "userfaultfd": lambda: call(323, 0),
    "keyring": lambda: call(250, 0, 0, 0, 0, 0),
    "kernel log": lambda: call(103, 3, buffer, 64),
    "another filter": lambda: call(317, 1, 0, buffer),
    "unsandboxed by 32-bit numbers": lambda: call(0x40000000 | 41, 2, 1, 0),
}
chosen = attacks if len(sys.argv) < 4 else {sys.argv[3]: attacks[sys.argv[3]]}
results = {}
for name, attack in chosen.items():
    if name == "unsandboxed by 32-bit numbers" and len(sys.argv) < 4:
        continue
    try:
        results[name] = f"SUCCEEDED: {attack()!r}"[:80]
    except (OSError, RuntimeError) as error:
        results[name] = ""
os.write(1, json.dumps([confinement.is_whole, os.getuid(), results]).encode())
"""
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
needs_whole = pytest.mark.skipif(
    not available().is_whole, reason=f"this kernel has {available().missing}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o777)
    (tmp_path / "key").write_bytes(b"a secret")
    (tmp_path / "key").chmod(0o666)
    return tmp_path


def attacked(folder: Path, *more: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(os.getpid()), str(folder), *more],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
    )


@needs_x86
@needs_whole
def test_each_attack_fails(folder: Path, record_property: Callable[[str, object], None]) -> None:
    done = attacked(folder)
    assert done.returncode == 0, done.stderr.decode()
    is_whole, user, results = json.loads(done.stdout)
    assert is_whole
    assert user != 0
    assert len(results) >= 50
    succeeded = {name: result for name, result in results.items() if result}
    what = "attacks of code in the decoding child that succeed"
    record_property("privacy", [what, len(results), len(succeeded)])  # a line of `make privacy`
    assert succeeded == {}
    assert (folder / "key").read_bytes() == b"a secret"
    assert sorted(path.name for path in folder.iterdir()) == ["key"]


@needs_x86
@needs_whole
def test_numbers_of_another_interface_end_the_process(folder: Path) -> None:
    assert attacked(folder, "unsandboxed by 32-bit numbers").returncode == -31  # SIGSYS


@needs_x86
def test_attacks_succeed_without_the_confinement(folder: Path) -> None:
    """Else the test above would show nothing; those that would end this test's parent aside."""
    free = CHILD.replace("confinement = child._confine()", "from types import SimpleNamespace")
    free = free.replace("confinement.is_whole", "False")
    for name in ("parent's environment", "internet socket", "read a key", "shell", "delete a file"):
        done = subprocess.run(
            [sys.executable, "-c", free, str(os.getpid()), str(folder), name],
            cwd=ROOT,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert b"SUCCEEDED" in done.stdout, (name, done.stderr)


@needs_whole
def test_confined_child_decodes_and_is_replaced(tmp_path: Path) -> None:
    with DecodeProcess(Preprocessing(size_px=32), Limits()) as decoder:
        assert decoder.confinement.is_whole
        assert decoder.prepare(png(1)).image is not None
        status = Path(f"/proc/{decoder.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert "Threads:\t1" in status
        decoder.close()
        assert decoder.prepare(png(2)).image is not None
        assert decoder.confinement.is_whole


def test_missing_parts_are_named_and_refused() -> None:
    parts = Confinement(seccomp=False, landlock=0, account=False)
    for words in ("seccomp", "Landlock, Linux 5.13", "runs as root"):
        assert words in parts.missing
    with pytest.raises(UsageError, match="--require-sandbox: on .* has no limit on system calls"):
        require_whole(parts)
    require_whole(Confinement(seccomp=True, landlock=1, account=True))


def test_kernel_without_landlock_still_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no file can be opened at all; what is imported late was imported before."""
    program = (
        "from implant_model.decode import confine, sandbox_child as child\n"
        "confine._landlock_abi = lambda: -1\n"
        "from implant_model.decode.preprocess import Preprocessing\n"
        "from implant_model.limits import Limits\n"
        "work = child._worker(Preprocessing(size_px=16), Limits())\n"
        "found = child._confine()\n"
        "import mmap, sys\n"
        "data = bytes.fromhex(sys.argv[1])\n"
        "shared = mmap.mmap(-1, max(len(data), 4096))\n"
        "shared[:len(data)] = data\n"
        "assert work(shared, {'size': len(data)})['reason'] is None\n"
        "try:\n"
        "    open('/etc/hostname')\n"
        "except PermissionError:\n"
        "    print(found.landlock, found.seccomp)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, png(1).hex()], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["0", str(available().seccomp)], done.stderr


@pytest.mark.parametrize("place", [0, 1], ids=["x86_64", "aarch64"])
def test_filter_allows_its_list_and_nothing_else(place: int) -> None:
    """The program by an interpreter of its own: each number, and each value that is checked."""
    architecture = [*module._ARCHITECTURE.values()][place]
    calls = {**module._CALLS, **module._FILE_CALLS}
    numbers = sorted(n for n in (pair[place] for pair in calls.values()) if n is not None)
    checked = [
        (p[place], argument, value) for p, argument, value in (module._PRLIMIT, module._FCNTL)
    ]
    program = module._filter(architecture, numbers, checked)

    def answer(number: int, *arguments: int, machine: int = architecture) -> int:
        return interpreted(program, number, machine, arguments)

    limits, dup = (number for number, _, _ in checked)
    refused = module._ERRNO | module._EPERM
    for number in range(600):
        if number == dup:
            continue
        allowed = number in numbers or number == limits
        assert answer(number) == (module._ALLOW if allowed else refused), number
    assert answer(limits, 5) == answer(limits, 5 << 32) == refused
    assert answer(dup, 3, 1030) == module._ALLOW
    assert answer(dup, 1030, 8) == answer(dup, 3, 1030 | 1 << 32) == refused
    assert answer(0, machine=0x40000003) == answer(0x40000000 | 41) == module._KILL


def interpreted(program: bytes, number: int, machine: int, arguments: tuple[int, ...]) -> int:
    import struct

    data = struct.pack("=IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = [*struct.iter_unpack("=HBBI", program)]
    held = place = 0
    while True:
        code, true, false, value = steps[place]
        place += 1
        if code == 0x20:
            held = struct.unpack_from("=I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            is_true = held == value if code == 0x15 else held >= value
            place += true if is_true else false
