"""A training from a bucket that loses a worker, then is killed, ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from implant_model.classifier import Classifier
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.files import Sample, sample_archives
from tests.fit.trainings import epochs_of, train_workers
from tests.support.object_store import ObjectStore
from tests.support.paths import ROOT
from tests.support.ray_cluster import kill_with_descendants
from training.data.gather import gather, list_images
from training.data.labels import read_labels

EPOCHS = 40
PATIENCE_S = 400
CONFIG = """
name = "recovered"
[preprocessing]
size_px = 48
[data]
cache = "s3://{bucket}/{name}-images"
[split]
calibration = 0.3
test = 0.3
duplicate_bits = 4
[network]
architecture = "shufflenet_v2_x0_5"
[fit]
epochs = {epochs}
batch_size = 16
learning_rate = 3e-3
ema = 0.9
checkpoint_epochs = 2
checkpoints = "s3://{bucket}/{name}"
mixed_precision = false
[card]
synthetic = true
"""


def train(
    folder: Path, bucket: str, name: str, store: ObjectStore, *more: str
) -> "subprocess.Popen[str]":
    """Starts, or goes on with, the training of a name."""
    config = folder / f"{name}.toml"
    config.write_text(CONFIG.format(bucket=bucket, name=name, epochs=EPOCHS))
    images = f"s3://{bucket}/phantoms"
    command = ["--images", images, "--labels", f"{images}/labels.csv", "--workers", "2"]
    output = ["--config", str(config), "--output", str(folder / name), *more]
    own = {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "120"}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.train", *command, *output],
        cwd=ROOT,
        env={**os.environ, **store.environment, **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(folder: Path, name: str, count: int, job: "subprocess.Popen[str]") -> None:
    """Waits until so many epochs are written."""
    deadline = time.monotonic() + PATIENCE_S
    while len(epochs_of(folder / f"{name}.work")) < count:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def kill_all(job: "subprocess.Popen[str]") -> None:
    """Ends the job and its whole cluster at once, as a lost machine would."""
    kill_with_descendants(job.pid)
    job.communicate(timeout=60)


@pytest.fixture
def phantoms(tmp_path: Path, bucket: str, object_store: ObjectStore) -> str:
    """A bucket with 96 phantoms of two implants; returns its name."""
    sample = Sample(implants=ORTHONET.implants[7:9], height_px=96, images_per_patient=2)
    sample_archives(tmp_path / "phantoms", 96, 5, sample)
    for file in sorted((tmp_path / "phantoms").iterdir()):
        key = f"phantoms/{file.name}"
        object_store.client().put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
    return bucket


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_lost_worker_and_a_lost_job_change_nothing(
    phantoms: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    job = train(tmp_path, phantoms, "disturbed", object_store)
    try:
        wait_for(tmp_path, "disturbed", 5, job)
        workers = train_workers(job.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)  # in the middle of an epoch: they follow each other
        done = len(epochs_of(tmp_path / "disturbed.work"))
        wait_for(tmp_path, "disturbed", done + 3, job)
    finally:
        kill_all(job)
    before = epochs_of(tmp_path / "disturbed.work")
    assert 0 < before[done] <= done  # it went on from a checkpoint, not from the start
    resumed = train(tmp_path, phantoms, "disturbed", object_store, "--resume")
    out, err = resumed.communicate(timeout=PATIENCE_S)
    assert resumed.returncode == 0, err
    after = epochs_of(tmp_path / "disturbed.work")[len(before) :]
    assert 0 < after[0] <= before[-1] + 1
    assert after[-1] == EPOCHS - 1

    alone = train(tmp_path, phantoms, "alone", object_store)
    _, err = alone.communicate(timeout=PATIENCE_S)
    assert alone.returncode == 0, err
    packages = [load_package(str(tmp_path / name)) for name in ("disturbed", "alone")]
    weights = [package.files["classifier.safetensors"] for package in packages]
    assert weights[0] == weights[1]

    package = packages[0]
    assert package.id in out
    shards = object_store.client().list_objects_v2(Bucket=phantoms, Prefix="alone-images/")
    assert any(item["Key"].endswith(".arrow") for item in shards["Contents"])
    assert not (tmp_path / "alone.work" / "images").exists()
    labels = read_labels(f"file://{tmp_path}/phantoms/labels.csv")
    objects = list_images([str(tmp_path / "phantoms")], [labels.uri])
    read = gather(objects, labels, package.preprocessing, Limits(), str(tmp_path / "again"))
    said = Classifier(package).classify(read.images[:])
    names = [package.catalogue.names[best] for best in said.probabilities_NC.argmax(axis=1)]
    right = sum(name == label for name, label in zip(names, read.labels, strict=True))
    assert right > 0.7 * len(names)
