"""A model that gives no answers ends the run with a sentence; no archive is said to have failed."""

from pathlib import Path

import pytest
from deltalake import DeltaTable

from implant_model.phantoms.files import Sample, sample_archives
from tests.support.ray_cluster import RayCluster
from tests.support.small_package import save_small_package


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("mean", "code"),
    [
        pytest.param(0.5, 2, marks=pytest.mark.slow),
        pytest.param(0.0, 3, marks=pytest.mark.long),
    ],
)
def test_networks_that_overflow_end_the_run(
    mean: float, code: int, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    """For a black picture, on which an actor warms up, or only for pictures of archives."""
    sample_archives(tmp_path / "in", 8, 5, Sample(height_px=96))
    (tmp_path / "in" / "labels.csv").unlink()
    package = save_small_package(tmp_path / "model", mean=mean, gain=1e38)
    call = [str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    done = ray_cluster.run("jobs.classify", *call, "--model", str(tmp_path / "model"))
    assert done.returncode == code, done.stderr
    assert f"\nclassify: The networks of {package.id} gave a value that is not fin" in done.stderr
    assert "Traceback" not in done.stderr
    assert "storage_error" not in done.stdout
    assert DeltaTable(str(tmp_path / "out" / "archives")).to_pyarrow_table().num_rows == 0
