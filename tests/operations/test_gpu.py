"""The jobs on a GPU, as their users run them: what they say is what they say on CPUs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from benchmarks.gpu.full_size import SIZE_PX, save_full_size
from implant_model.classifier import Classifier
from implant_model.networks.spec import Precision
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import ModelPackage, load_package
from implant_model.phantoms.files import Sample, sample_archives
from tests.support.paths import ROOT
from tests.support.ray_cluster import run_python

PHANTOM = str(ROOT / "models" / "phantom")
SETTINGS = """
name = "trial"
[preprocessing]
size_px = 64
[split]
calibration = 0.3
test = 0.3
[segmenter]
width = 4
epochs = 2
[network]
architecture = "resnet18"
[fit]
epochs = 2
batch_size = 16
[card]
source = "Phantoms of this test."
licence = "Apache-2.0"
synthetic = true
"""


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    folder = tmp_path_factory.mktemp("package") / "full-size"
    save_full_size(folder)
    return load_package(str(folder))


def run(*command: str) -> str:
    """Runs a job on a cluster of its own, whose GPUs Ray finds; returns what it printed."""
    done = run_python("-m", *command, timeout_s=540)
    assert done.returncode == 0, done.stderr
    return done.stdout


def predictions(output: Path) -> list[dict[str, object]]:
    table = pa.table(DeltaTable(str(output / "predictions")).to_pyarrow_table())
    order = [("archive", "ascending"), ("member_index", "ascending")]
    rows: list[dict[str, object]] = table.sort_by(order).to_pylist()
    return rows


def without(row: dict[str, object], names: Sequence[str]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name not in names}


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "within"), [("float32", 1e-3), ("bfloat16", 0.05)])
@pytest.mark.parametrize("count", [3, 40, 256])
def test_networks_of_full_size_say_on_a_gpu_what_they_say_on_cpus(
    precision: Precision, within: float, count: int, full_size: ModelPackage
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE_PX, SIZE_PX), np.uint8)
    wanted = Classifier(full_size).classify(images)
    many = images[np.arange(count) % 3]
    said = Classifier(full_size, "cuda", precision).classify(many, None)
    expected_NC = wanted.probabilities_NC[np.arange(count) % 3]
    np.testing.assert_allclose(said.probabilities_NC, expected_NC, atol=within)


@pytest.mark.gpu
@pytest.mark.cluster
def test_the_job_says_on_a_gpu_what_it_says_on_cpus(tmp_path: Path) -> None:
    archives = tmp_path / "archives"
    sample = Sample(height_px=192, unknown_rate=0.1, bare_rate=0.1)
    sample_archives(archives, 300, 5, sample)
    (archives / "labels.csv").unlink()
    found = {}
    for device, options in (("gpu", []), ("cpu", ["--gpus-per-actor", "0"])):
        output = tmp_path / device
        call = [str(archives), "--output", str(output), "--model", PHANTOM]
        run("jobs.classify", *call, *options)
        found[device] = predictions(output)
    assert len(found["cpu"]) == 300
    figures = ("probability", "novelty", "top")
    for gpu, cpu in zip(found["gpu"], found["cpu"], strict=True):
        assert without(gpu, figures) == without(cpu, figures)
        assert gpu["probability"] == pytest.approx(cpu["probability"], abs=1e-3)
        assert gpu["novelty"] == pytest.approx(cpu["novelty"], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.cluster
def test_a_training_on_a_gpu_makes_a_package_that_classifies(tmp_path: Path) -> None:
    archives, output = tmp_path / "archives", tmp_path / "model"
    sample = Sample(implants=ORTHONET.implants[7:9], height_px=96)
    sample_archives(archives, 48, 5, sample)
    (archives / "labels.csv").rename(tmp_path / "labels.csv")
    (tmp_path / "train.toml").write_text(SETTINGS)
    call = ["--images", str(archives), "--labels", str(tmp_path / "labels.csv")]
    call += ["--config", str(tmp_path / "train.toml"), "--output", str(output)]
    run("jobs.train", *call)
    provenance = load_package(str(output)).provenance
    assert "Trained on 1 GPU worker" in str(provenance["environment"])
    run("jobs.classify", str(archives), "--output", str(tmp_path / "out"), "--model", str(output))
    assert len(predictions(tmp_path / "out")) == 48
