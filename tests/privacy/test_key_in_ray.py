"""The key of the pseudonyms is in no part of Ray: object store, control store, session, spill."""

import base64
import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from implant_model.errors import UsageError
from jobs.entry.command import USAGE
from tests.privacy.conftest import Tell
from tests.support.dicom_edits import dicom, picture
from tests.support.paths import ROOT
from tests.support.ray_cluster import RayCluster
from tests.torture.cases.files import png

SECRET = hashlib.sha256(b"a test's key")
KEY = base64.b64encode(SECRET.digest())
FORMS = (
    KEY,
    SECRET.digest(),
    SECRET.hexdigest().encode(),
    KEY.hex().encode(),
    base64.b64encode(KEY),
)
CHUNK = 64 << 20
# Runs the job, then fills the object store until Ray spills what the job left in it.
DRIVER = """
import sys
import numpy as np
import ray
from jobs import classify
from jobs.entry.cluster import start_ray
start_ray()
print("BEGIN", ray._private.worker._global_node.get_session_dir_path(), flush=True)
code = classify.main(sys.argv[1:])
refs = [ray.put(np.full(10_000_000, n, np.uint8)) for n in range(70)]
node = ray._private.worker._global_node
print("SESSION", code, node.get_session_dir_path(), flush=True)
sys.stdin.readline()
"""


def findings(chunks: Iterator[bytes]) -> set[bytes]:
    """The forms of the key that occur, also across two chunks."""
    found, tail = set(), b""
    for chunk in chunks:
        data = tail + chunk
        found |= {form for form in FORMS if form in data}
        tail = data[-max(map(len, FORMS)) :]
    return found


def chunks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def memory_of(pid: int) -> Iterator[bytes]:
    """What is readable of a process, the mapped object store among it."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            bounds, rights = line.split()[:2]
            start, end = (int(bound, 16) for bound in bounds.split("-"))
            if "r" not in rights or "[v" in line:
                continue
            for place in range(start, end, CHUNK):
                try:
                    memory.seek(place)
                    yield memory.read(min(CHUNK, end - place))
                except (OSError, ValueError, OverflowError):
                    break


def servers_of(session: Path) -> dict[str, int]:
    """Ray's own servers of a session: raylet (which maps the object store) and control store."""
    servers = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            name = command.partition("\0")[0].rpartition("/")[2]
            if name in ("raylet", "gcs_server") and session.name in command:
                servers[name] = int(folder.name)
    return servers


class Watch:
    """Scans the servers' memory again and again: what a job leaves there may be gone at its end."""

    def __init__(self, servers: dict[str, int]) -> None:
        self.found: set[tuple[str, bytes]] = set()
        self.scans = 0
        self._servers = servers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for name, pid in self._servers.items():
                self.found |= {(name, form) for form in findings(memory_of(pid))}
            self.scans += 1


def read_until(driver: "subprocess.Popen[bytes]", pattern: bytes) -> tuple[bytes, re.Match[bytes]]:
    """What a driver has printed up to a line, and the line."""
    assert driver.stdout is not None
    said = b""
    while not (found := re.search(pattern, said)):
        line = driver.stdout.readline()
        assert line, driver.stderr and driver.stderr.read()[-3000:].decode()
        said += line
    return said, found


@pytest.mark.cluster
@pytest.mark.long
def test_key_is_in_no_store_and_no_file_of_ray(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path, tell: Tell
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.png").write_bytes(png(number))
    (tmp_path / "in" / "a.dcm").write_bytes(dicom(picture()))
    key = tmp_path / "pseudonyms.key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    call = [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", str(small_package)]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *call, "--key-file", str(key)],
        cwd=ROOT,
        env=ray_cluster.driver_environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        said, begin = read_until(driver, rb"BEGIN (\S+)\n")
        servers = servers_of(Path(begin[1].decode()).resolve())
        assert set(servers) >= {"raylet"}
        with Watch(servers) as watch:
            more, ended = read_until(driver, rb"SESSION (\d+) (\S+)\n")
        said += more
        assert ended[1] == b"0"
        assert watch.scans >= 3, "the store was looked at too seldom while the job ran"
        assert watch.found == set()
        session = Path(ended[2].decode()).resolve()
        spilled = [file for file in session.rglob("*") if "spilled" in str(file) and file.is_file()]
        assert spilled, "nothing was spilled, so this shows nothing"
        found: dict[str, set[bytes]] = {}
        for file in [*session.rglob("*")]:
            if file.is_file() and not file.is_symlink():
                found[str(file)] = findings(chunks_of(file))
        for name, pid in servers.items():
            found[name] = findings(memory_of(pid))
        holders = {place for place, forms in found.items() if forms}
        tell("files and processes of Ray that hold the key", len(found), len(holders))
        assert holders == set()
    finally:
        _, errors = driver.communicate(b"\n", timeout=60)
    assert not any(form in said + errors for form in FORMS)
    rows = pl.read_delta(str(tmp_path / "out" / "predictions"))
    assert rows["patient"].drop_nulls().len() == 1, "the pseudonym was made"
    (key_id,) = set(pl.read_delta(str(tmp_path / "out" / "archives"))["key_id"])
    assert len(key_id) == 12


def test_scan_finds_a_key_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(CHUNK - 10) + KEY + bytes(100))
    assert findings(chunks_of(tmp_path / "file")) == {KEY}
    held = subprocess.Popen(
        [sys.executable, "-c", "import sys; held = sys.stdin.buffer.readline(); input()", "-"],
        stdin=subprocess.PIPE,
    )
    try:
        assert held.stdin is not None
        held.stdin.write(KEY + b"\n")
        held.stdin.flush()
        for _ in range(100):
            if KEY in findings(memory_of(held.pid)):
                break
        else:
            pytest.fail("the scan does not find a key in a process that holds it")
    finally:
        held.kill()
        held.communicate()


@pytest.mark.cluster
@pytest.mark.long
def test_node_with_another_key_ends_the_run_in_one_sentence(
    tmp_path: Path, ray_cluster: RayCluster, small_package: Path
) -> None:
    """The variable is the driver's own: Ray's workers have another one, or none."""
    (tmp_path / "in.png").write_bytes(png(1))
    call = [str(tmp_path / "in.png"), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.classify", *call, "--model", str(small_package)]
        + ["--key-file", "env:ONLY_HERE"],
        cwd=ROOT,
        env={**ray_cluster.driver_environment, "ONLY_HERE": KEY.decode()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == USAGE, done.stderr
    assert "There is no environment variable ONLY_HERE with a key" in done.stderr
    assert "Traceback" not in done.stderr
    assert UsageError.__name__ not in done.stderr
