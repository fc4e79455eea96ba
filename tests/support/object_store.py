"""A real object store over HTTP for the tests: moto's server, a process of its own on loopback."""

import contextlib
import functools
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import boto3
import pytest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
_OTHERS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL_S3")
# So that a listing of a few dozen objects has several pages.
_PAGE = {"MOTO_S3_DEFAULT_MAX_KEYS": "50"}
_START_S = 60


@dataclass(frozen=True)
class ObjectStore:
    """A running server.

    Attributes:
        port: Its port on 127.0.0.1.
        pid: Its process.
    """

    port: int
    pid: int
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    @functools.cached_property
    def _client(self) -> "S3Client":
        return boto3.Session().client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        )

    def client(self) -> "S3Client":
        """A plain boto3 client that goes to the store past any fault proxy."""
        return self._client

    def new_bucket(self) -> str:
        """Makes an empty bucket that nothing else uses; returns its name."""
        name = f"bucket-{next(self._numbers):06d}"
        self.client().create_bucket(Bucket=name)
        return name


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running_object_store(log: Path, **environment: str) -> Iterator[ObjectStore]:
    """Starts a server, waits until it answers, ends it by its pid.

    Args:
        log: File that takes what the server prints.
        environment: More variables for the server's process.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.defpath, **_PAGE, **environment},
        )
    try:
        _wait_until_it_answers(process, port, log)
        yield ObjectStore(port, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"moto's server did not come up on port {port}: {log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """The session's object store; the AWS variables of this process point at it."""
    log = tmp_path_factory.mktemp("object-store") / "moto.log"
    with running_object_store(log) as store, pytest.MonkeyPatch.context() as patch:
        for name in _OTHERS:
            patch.delenv(name, raising=False)
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


@pytest.fixture
def bucket(object_store: ObjectStore) -> str:
    """The name of a fresh bucket in the session's object store."""
    return object_store.new_bucket()
