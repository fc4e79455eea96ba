"""What `doctor` finds of a Ray cluster: who may enter, its version, its GPUs."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPException
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from implant_model.errors import UsageError
from jobs.checks.machine import FLOORS, numbers
from jobs.entry.cluster import possible_resources, start_ray

TIMEOUT_S: Final = 10
_REMEDY: Final = (
    "start it with RAY_AUTH_MODE=token on every node, and keep its ports off public networks."
)
NOTHING: Final = "Nothing answers at"
"""How findings begin after which a cluster cannot be asked anything."""
_NO_ANSWER: Final = (OSError, HTTPException, ValueError)
"""No connection, an answer that is no HTTP, and a name that no host can have."""
_JOIN: Final = """
import os, sys
os.environ.update(RAY_AUTH_MODE="disabled")
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=10)
"""
"""What a stranger without a token can do first: read the cluster's own key-value store."""


def parse_address(text: str) -> str:
    """Check the form of an address.

    Raises:
        UsageError: It is neither http(s)://HOST[:PORT] nor HOST:PORT.
    """
    form = r"https?://[^/\s]+/?|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}"
    if not re.fullmatch(form, text) or not _names_a_port(text):
        raise UsageError(
            f"--address is {text!r}; accepted is http://HOST:8265 of a job server or HOST:6379 of "
            "a cluster."
        )
    return text.rstrip("/")


def _names_a_port(text: str) -> bool:
    """Return whether an address has a host, and its port, if any, is from 1 to 65535."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def check_access(address: str) -> Iterator[str]:
    """Yield a Ray that lets anyone in: who reaches it may run any program on every node."""
    if address.startswith("http"):
        yield from _check_job_server(address)
    else:
        yield from _check_cluster(address)


def _check_job_server(address: str) -> Iterator[str]:
    try:
        with urlopen(Request(f"{address}/api/jobs/"), timeout=TIMEOUT_S):
            yield f"Ray at {address} takes jobs from anyone who reaches it; {_REMEDY}"
    except HTTPError as error:
        if error.code not in (401, 403):
            yield f"No job server answers at {address} (HTTP {error.code}); check --address."
            return
    except _NO_ANSWER as error:
        yield _nothing(address, error)
        return
    yield from _check_version(address)


def _nothing(address: str, error: Exception) -> str:
    why = " ".join(str(error).split()) or type(error).__name__
    return f"{NOTHING} {address} ({why}); check --address and that Ray runs."


def _check_version(address: str) -> Iterator[str]:
    headers = {}
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    try:
        with urlopen(
            Request(f"{address}/api/version", headers=headers), timeout=TIMEOUT_S
        ) as reply:
            version = str(json.load(reply)["ray_version"])
    except (*_NO_ANSWER, KeyError, TypeError):
        return  # it keeps that to itself, too
    if numbers(version) < numbers(FLOORS["ray"]):
        yield (
            f"Ray {version} at {address} has known vulnerabilities; install {FLOORS['ray']} or "
            "newer on its nodes."
        )


def _check_cluster(address: str) -> Iterator[str]:
    """By a process of its own: authentication is settled once in a process, and this has none."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
    except _NO_ANSWER as error:
        yield _nothing(address, error)
        return
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    command = [sys.executable, "-c", _JOIN, address]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        yield f"{NOTHING} {address} within 60 seconds; check --address and that Ray runs."
        return
    if done.returncode == 0:
        yield f"The Ray cluster {address} lets in anyone who reaches it; {_REMEDY}"
    elif not re.search(r"[Uu]nauthenticated|AuthenticationError|token", done.stderr):
        yield f"{NOTHING} {address} as a Ray cluster; check --address and that Ray runs."


def check_gpu(address: str | None) -> Iterator[str]:
    """Yield that an expected GPU is missing: on the cluster, or here if none is named.

    Raises:
        UsageError: A job server is named, which does not say.
    """
    if address is None:
        from implant_model.classifier import has_gpu

        if not has_gpu():
            yield (
                "A GPU is asked for and PyTorch finds none on this machine; install NVIDIA's "
                "driver, or classify on CPUs with --gpus-per-actor 0."
            )
        return
    if address.startswith("http"):
        raise UsageError(
            f"--gpu cannot ask the job server {address}; name the cluster by HOST:6379, or run "
            "doctor on it by ray job submit."
        )
    os.environ["RAY_ADDRESS"] = address
    start_ray()
    if not possible_resources().get("GPU"):
        yield (
            f"A GPU is asked for and no node of the Ray cluster {address} has one, or could be "
            "added with one; add a group of GPU nodes, or classify with --gpus-per-actor 0."
        )
