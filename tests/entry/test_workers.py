"""Workers that find no room are refused, and not waited for without end."""

import pytest
import ray

from implant_model.errors import UsageError
from jobs.entry import cluster as module
from jobs.entry.cluster import place_workers


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What Ray states that there is: 4 CPUs, more where a test adds it."""
    there = {"CPU": 4.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    monkeypatch.setattr(module, "possible_resources", lambda: there)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return there


def test_workers_hold_gpus_where_there_is_one_for_each(cluster: dict[str, float]) -> None:
    assert place_workers(4, print) is False
    cluster["GPU"] = 2.0
    assert place_workers(2, print) is True
    assert place_workers(3, print) is False


def test_more_workers_than_cpus_are_refused(cluster: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--workers 5 ask for a CPU each, and .* has 4; ask"):
        place_workers(5, print)


def test_on_a_cluster_that_may_grow_it_is_said(
    cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    lines: list[str] = []
    assert place_workers(5, lines.append) is False
    assert len(lines) == 1
    assert "the cluster has 4: nothing is trained until it has grown" in lines[0]
