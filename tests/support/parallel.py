"""How the suite is spread over processes by pytest-xdist: by module, one Ray cluster for all.

A module's tests run in one process, so that its fixtures are made once. The modules that use the
session's Ray cluster run in the same process, so that there is one cluster; they come first, and
after them those with other tests that take long: no process is left alone with one at the end.
"""

import functools
import os
import re

import cv2
import pytest
import torch
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.scheduler.protocol import Scheduling

from tests.support.paths import ROOT

SHARED_CLUSTER = "the shared Ray cluster"
_MAX_PROCESSES = 4
"""More gain little: the tests on the shared cluster are half the time, one after another."""
_BYTES_EACH = 3 << 30
"""A process with torch takes 1 to 2 GB, the Ray cluster beside them about 2 GB."""


@functools.cache
def scope_of(path: str) -> str:
    """Return what runs in one process: a module, or all modules that share the Ray cluster."""
    return SHARED_CLUSTER if re.search(r"\bray_cluster: ", _text(path)) else path


@functools.cache
def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def _rank(item: pytest.Item) -> int:
    path = item.nodeid.split("::")[0]
    if scope_of(path) == SHARED_CLUSTER:
        return 0
    return 1 if re.search(r"\bmark\.(cluster|slow)\b", _text(path)) else 2


def processes(cores: int, num_bytes: int) -> int:
    """Return how many processes of tests a machine takes; 1 where memory is short."""
    return max(1, min(cores, _MAX_PROCESSES, num_bytes // _BYTES_EACH))


class ByModule(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a process whole modules."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid.split("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` stands for."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return processes(len(os.sched_getaffinity(0)), memory)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Return the scheduler of `-n`, which takes modules in the order of their collection."""
    config.option.loadscopereorder = False
    return ByModule(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first, so that no process is left alone with them at the end."""
    items.sort(key=_rank)


def pytest_configure() -> None:
    """Keep a process among others to one core; torch and OpenCV would take all of them."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
