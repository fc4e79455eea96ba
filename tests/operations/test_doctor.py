"""Each fault that doctor looks for, made for real, and a set-up without one."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from implant_model import storage
from implant_model.decode.confine import Confinement
from implant_model.errors import UsageError
from jobs import doctor as doctor_job
from jobs.checks import machine, nodes
from jobs.checks.machine import (
    CODECS,
    FLOORS,
    bundled_openjpeg,
    check_bundled,
    check_codecs,
    check_spill_folder,
    check_store,
    check_versions,
    numbers,
)
from jobs.checks.nodes import SOFTWARE, Answer, Node, check_nodes, judge_node, teller
from jobs.checks.ray_access import check_access, check_gpu, parse_address
from jobs.doctor import examine, main, parse_doctor
from tests.support.object_store import ObjectStore, free_port
from tests.support.paths import ROOT
from tests.support.ray_cluster import RayCluster, running_cluster

LOCAL_DISK = "/dev/vda1 / ext4 rw 0 0\n"


def doctor(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "jobs.doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def old_package(folder: Path, name: str, version: str) -> None:
    """What pip leaves of an old version, found before the new one."""
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_locked_versions_and_codecs_are_well() -> None:
    assert list(check_versions()) == []
    assert list(check_codecs()) == []
    assert list(check_bundled()) == []
    assert set(bundled_openjpeg()) == {"pillow", "imagecodecs"}


def test_codec_library_with_a_known_hole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagecodecs.jpeg2k_version", lambda: "openjpeg 2.5.3")
    (finding,) = check_bundled()
    assert finding.startswith("imagecodecs bundles OpenJPEG 2.5.3, which has known vulnerabil")


def test_floors_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for package, floor in FLOORS.items():
        assert f'"{package}>={floor}"' in project or f'"{package}[' in project
        assert f">={floor}" in project


def test_every_codec_that_dicom_is_read_with_is_looked_for() -> None:
    assert CODECS["rle.rle"] == ("pylibjpeg-rle", "RLE in DICOM")
    for package, _ in CODECS.values():
        assert f'"{package}' in (ROOT / "pyproject.toml").read_text()


def test_old_version_and_missing_codec_are_found(tmp_path: Path) -> None:
    old_package(tmp_path, "pydicom", "2.4.4")
    old_package(tmp_path, "torch", "2.9.1")
    (tmp_path / "gdcm.py").write_text("raise ImportError('libgdcm.so.3 is missing')\n")
    done = doctor("--spill", str(tmp_path), PYTHONPATH=str(tmp_path))
    assert done.returncode == 3, done.stderr
    found = done.stdout.splitlines()
    assert "pydicom 2.4.4 has known vulnerabilities; install 3.0.2 or newer" in found[0]
    assert "torch 2.9.1 has known vulnerabilities; install 2.10 or newer" in found[1]
    assert "The codec of lossless JPEG in DICOM cannot be loaded (libgdcm.so.3 is mis" in found[2]
    assert "install python-gdcm" in found[2]
    assert found[-1] == f"{len(found) - 1} findings."
    assert done.stderr.endswith("doctor: exit code 3\n")


@pytest.mark.parametrize(
    ("older", "newer"),
    [("2.9.1", "2.10"), ("2.10.0rc1", "2.11"), ("3.0.1", "3.0.2"), ("23.0", "23.0.1")],
)
def test_versions_are_compared_by_number(older: str, newer: str) -> None:
    assert numbers(older) < numbers(newer)
    assert numbers(f"{newer}.post1") >= numbers(newer)


def test_spill_folder_in_memory_is_found() -> None:
    finding, *_ = check_spill_folder("/dev/shm/ray")
    assert finding.startswith("Ray spills to /dev/shm/ray, which is itself in memory (tmpfs); ")
    assert "RAY_TMPDIR" in finding


def test_spill_folder_on_a_small_disk_is_found(tmp_path: Path) -> None:
    """A disk of 8 MB in a mount namespace of its own: no right on this machine is needed."""
    small = tmp_path / "small"
    small.mkdir()
    doctor_there = (
        f"mount -t tmpfs -o size=8m small {small} && "
        f"exec {sys.executable} -m jobs.doctor --spill {small}"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", doctor_there],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this machine has no user namespaces")
    assert done.returncode == 3, done.stderr
    assert f"Ray spills to {small}, which has 0.0 GB free;" in done.stdout


def test_spill_folder_on_a_share_is_found(tmp_path: Path) -> None:
    mounts = f"{LOCAL_DISK}filer:/export {tmp_path} nfs4 rw 0 0\n"
    finding, *_ = check_spill_folder(str(tmp_path / "ray"), mounts)
    assert "which is shared over a network (nfs4)" in finding
    local = f"{mounts}/dev/vdb1 {tmp_path}/ray ext4 rw 0 0\n"
    (tmp_path / "ray").mkdir()
    assert not any("shared" in finding for finding in check_spill_folder(f"{tmp_path}/ray", local))


def test_spill_folder_that_is_a_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "ray").write_text("")
    (finding,) = check_spill_folder(str(tmp_path / "ray" / "spill"))
    assert "may not be written" in finding


class Overwriting(BaseHTTPRequestHandler):
    """A store that keeps objects and never looks at If-None-Match."""

    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, b"")

    def do_HEAD(self) -> None:
        is_bucket = self.path.strip("/").count("/") == 0
        self._answer(200 if is_bucket or self.path in self.objects else 404, b"", self.path)

    def do_GET(self) -> None:
        if "list-type=2" in self.path:
            self._answer(200, b"<ListBucketResult><Name>bucket</Name></ListBucketResult>")
            return
        self._answer(200 if self.path in self.objects else 404, self.objects.get(self.path, b""))

    def _answer(self, code: int, body: bytes, path: str | None = None) -> None:
        held = self.objects.get(path or "", body)
        self.send_response(code)
        self.send_header("ETag", '"0"')
        self.send_header("Content-Length", str(len(held)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def overwriting_store(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Overwriting.objects = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Overwriting)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("overwriting_store")
def test_store_that_overwrites_is_found() -> None:
    (finding,) = check_store("s3://bucket/out")
    assert "overwrites objects although it is asked not to" in finding
    assert "choose AWS S3" in finding


def test_store_that_does_not_is_well(bucket: str, tmp_path: Path) -> None:
    assert list(check_store(f"s3://{bucket}/out")) == []
    assert list(check_store(storage.normalise(str(tmp_path / "out")))) == []
    (finding,) = check_store("s3://no-such-bucket/out")
    assert "is not usable" in finding


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there_is_found() -> None:
    (finding,) = check_gpu(None)
    assert "PyTorch finds none on this machine" in finding


@pytest.mark.parametrize(
    "address",
    [
        "head",
        "http://",
        "head:port",
        "head:6379/x",
        "ftp://a:1",
        "head:65536",
        "head:0",
        "http://head:port",
        "http://head:99999",
        "http://[::1",
        "http://a]b:1",
        "http://:8265",
    ],
)
def test_address_of_another_form_is_a_mistake(address: str) -> None:
    with pytest.raises(UsageError, match="--address is"):
        parse_address(address)


def test_mistakes_are_sentences() -> None:
    with pytest.raises(UsageError, match="HOST:6379"):
        list(check_gpu("http://127.0.0.1:8265"))
    with pytest.raises(UsageError, match="--colour"):
        main(["--colour"])


def test_address_and_folder_are_those_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_TMPDIR", "/scratch")
    options = parse_doctor([])
    assert (options.address, options.spill) == ("10.0.0.1:6379", "/scratch/ray")
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setenv("TMPDIR", "/fast")
    assert parse_doctor([]).spill == "/fast/ray"


def test_folder_whose_path_is_too_long_for_sockets_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    assert main([]) == 3
    assert "Set RAY_TMPDIR to a short path" in capsys.readouterr().out


HERE = {"ray": "2.60.0", "torch": "2.10.0", SOFTWARE: "0.1.0"}
AS_HERE = Answer(HERE, "/tmp/ray", 20 * 10**9)


def judged(**changes: Any) -> list[str]:
    return [*judge_node(Node("10.0.0.2", 9.6e9, replace(AS_HERE, **changes)), HERE)]


def test_node_like_this_machine_is_well() -> None:
    assert judged() == []
    assert judged(versions={**HERE, SOFTWARE: None}) == [], "the working directory brings it"


def test_node_that_differs_is_one_sentence() -> None:
    old = {"ray": "2.54.0", "torch": None, SOFTWARE: "0.0.9"}
    (finding,) = judged(versions=old)
    assert finding == (
        "Node 10.0.0.2 has other packages than this machine (ray 2.54.0 where 2.60.0 is expected; "
        "torch is missing where 2.10.0 is expected; implant_model 0.0.9 where 0.1.0 is expected); "
        "install requirements.lock on both."
    )
    (finding,) = judged(free=10**9)
    assert "on node 10.0.0.2 spills to /tmp/ray, which has 1.0 GB free; 9.6 GB" in finding


def test_node_without_an_answer_is_found() -> None:
    (finding,) = judge_node(Node("10.0.0.2", 0, "gave no answer within 60 seconds"), HERE)
    assert finding.startswith("Node 10.0.0.2 gave no answer within 60 seconds; ")


def test_a_node_needs_none_of_this_software_to_be_asked() -> None:
    """What travels is the function itself, and it imports what it needs where it runs."""
    told = teller()
    assert "<locals>" in told.__qualname__
    assert set(told.__code__.co_freevars) == {"packages", "software"}
    names = told.__code__.co_names
    assert not {name for name in names if name in told.__globals__} - {"dict"}


@pytest.mark.parametrize("access", [[], ["Anyone enters."]])
def test_nodes_of_a_cluster_that_answers_are_asked(
    monkeypatch: pytest.MonkeyPatch, access: list[str]
) -> None:
    assert nodes_found(monkeypatch, "10.0.0.1:6379", access) == [*access, "A node differs."]


def test_nodes_of_a_cluster_that_does_not_answer_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = ["Nothing answers at 10.0.0.1:6379 (timed out); check --address."]
    assert nodes_found(monkeypatch, "10.0.0.1:6379", silent) == silent
    assert list(check_nodes("http://10.0.0.1:8265")) == []


def nodes_found(monkeypatch: pytest.MonkeyPatch, address: str, access: list[str]) -> list[str]:
    """What doctor finds of a cluster, this machine aside."""
    for name in ("check_versions", "check_codecs"):
        monkeypatch.setattr(doctor_job, name, list)
    monkeypatch.setattr(doctor_job, "check_access", lambda _: access)
    monkeypatch.setattr(doctor_job, "check_nodes", lambda _: ["A node differs."])
    found = examine(parse_doctor(["--address", address]))
    return [finding for finding in found if "spill" not in finding]


def test_cluster_that_lets_this_driver_not_in_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise UsageError("The Ray cluster 10.0.0.1:6379 of RAY_ADDRESS cannot be joined: no.")

    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(nodes, "start_ray", refuse)
    (finding,) = check_nodes("10.0.0.1:6379")
    assert "cannot be joined" in finding


def test_nobody_there_is_found() -> None:
    for address in (f"http://127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"):
        (finding,) = check_access(address)
        assert finding.startswith(f"Nothing answers at {address}")


def test_odd_address_on_the_command_line_is_one_sentence() -> None:
    done = doctor("--address", "http://head:port")
    assert done.returncode == 2, done.stderr
    assert "--address is 'http://head:port'; accepted is" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example", "-"])
def test_name_that_no_host_can_have_is_found(host: str) -> None:
    for address in (f"http://{host}:8265", f"{host}:6379"):
        (finding,) = check_access(parse_address(address))
        assert finding.startswith(f"Nothing answers at {address}")
        assert "\n" not in finding


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n" * 200],
)
def test_what_speaks_no_http_is_found(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(4096)
                connection.sendall(answer)

        Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        (finding,) = check_access(address)
    assert finding.startswith(f"Nothing answers at {address}")
    assert "\n" not in finding
    assert "\r" not in finding


@pytest.mark.cluster
def test_open_cluster_is_found(ray_cluster: RayCluster) -> None:
    (finding,) = check_access(ray_cluster.jobs)
    assert "takes jobs from anyone who reaches it; start it with RAY_AUTH_MODE=token" in finding
    (finding,) = check_access(ray_cluster.address)
    assert "lets in anyone who reaches it" in finding
    done = doctor("--gpu", RAY_ADDRESS=ray_cluster.address, RAY_AUTH_MODE="disabled")
    assert done.returncode == 3, done.stderr
    assert f"no node of the Ray cluster {ray_cluster.address} has one" in done.stdout
    assert "Node " not in done.stdout, "it was asked, and is this machine"


@pytest.mark.cluster
def test_closed_cluster_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    with running_cluster(tmp_path / "head.log", variables, num_cpus=1) as cluster:
        assert list(check_access(cluster.jobs)) == []
        assert list(check_access(cluster.address)) == []
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert list(check_access(cluster.jobs)) == []
        assert list(check_access(cluster.address)) == []


def test_kernel_that_cannot_confine_the_decoder_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lacking = Confinement(seccomp=True, landlock=0, account=True)
    monkeypatch.setattr(machine, "available", lambda: lacking)
    (finding,) = machine.check_sandbox()
    assert "no limit on the file system (Landlock, Linux 5.13 or newer)" in finding
    assert "--require-sandbox" in finding
    monkeypatch.setattr(machine, "available", lambda: Confinement(True, 7, True))
    assert not [*machine.check_sandbox()]
