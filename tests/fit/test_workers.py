"""How many processes fit: read from the command line, and changed as nodes join and are lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from implant_model.errors import UsageError
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.files import Sample, sample_archives
from tests.fit.trainings import epochs_of, train_workers
from tests.support.paths import ROOT
from tests.support.ray_cluster import kill_with_descendants
from training.fit.workers import Workers, read_workers

EPOCHS = 300
PATIENCE_S = 300
CONFIG = f"""
name = "elastic"
[preprocessing]
size_px = 48
[split]
calibration = 0.3
test = 0.3
duplicate_bits = 4
[network]
architecture = "shufflenet_v2_x0_5"
[fit]
epochs = {EPOCHS}
batch_size = 16
checkpoint_epochs = 5
mixed_precision = false
[card]
synthetic = true
"""


def test_a_number_or_bounds_are_read() -> None:
    assert read_workers("3") == read_workers("3:3") == Workers(3, 3)
    assert read_workers("1:4") == Workers(1, 4)
    assert [str(read_workers(text)) for text in ("3:3", "1:4")] == ["3", "1:4"]
    assert [read_workers(text).to_json() for text in ("3:3", "1:4")] == [3, "1:4"]


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "2:1", "0:2", "1:", ":2", "1:2:3", "1.5"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--workers is .*accepted is N or MIN:MAX"):
        read_workers(text)


def test_bounds_are_lowered_to_those_that_have_a_share() -> None:
    assert Workers(2, 8).at_most(4) == Workers(2, 4)
    assert Workers(6, 8).at_most(4) == Workers(4, 4)
    assert not Workers(6, 8).at_most(4).is_elastic


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that offers nothing, and one node of one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
            yield cluster
        finally:
            cluster.shutdown()


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_training_grows_and_shrinks_with_its_cluster(cluster: Cluster, tmp_path: Path) -> None:
    sample = Sample(implants=ORTHONET.implants[7:9], height_px=96, images_per_patient=2)
    sample_archives(tmp_path / "phantoms", 96, 5, sample)
    config, work = tmp_path / "elastic.toml", tmp_path / "model.work"
    config.write_text(CONFIG)
    images = str(tmp_path / "phantoms")
    command = ["--images", images, "--labels", f"{images}/labels.csv", "--config", str(config)]
    job = subprocess.Popen(
        [
            *(sys.executable, "-m", "jobs.train", *command),
            *("--output", str(tmp_path / "model"), "--workers", "1:2"),
        ],
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def wait_until(is_met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_met():
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < deadline, epochs_of(work)
            time.sleep(0.2)

    try:
        wait_until(lambda: len(epochs_of(work)) >= 6)
        assert len(train_workers(os.getpid())) == 1
        joined = cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
        wait_until(lambda: len(train_workers(os.getpid())) == 2)
        grown = len(epochs_of(work))
        wait_until(lambda: len(epochs_of(work)) >= grown + 6)
        cluster.remove_node(joined, allow_graceful=False)
        wait_until(lambda: len(train_workers(os.getpid())) == 1)
        shrunk = len(epochs_of(work))
        said, complained = job.communicate(timeout=4 * PATIENCE_S)
    finally:
        kill_with_descendants(job.pid)
    assert job.returncode == 0, complained
    epochs = epochs_of(work)
    assert epochs[-1] == EPOCHS - 1
    assert epochs[grown] > 0  # from a checkpoint, not from the start
    assert epochs[shrunk] > 0
    assert set(epochs) == set(range(EPOCHS))
    package = load_package(str(tmp_path / "model"))
    assert package.id in said
    assert "1 to 2 CPU workers" in (tmp_path / "model" / "MODEL_CARD.md").read_text()
