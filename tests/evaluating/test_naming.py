"""Very many pictures are named on all nodes, and get the answers that they get here."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from implant_model.classifier import Classifier
from implant_model.errors import StorageError
from implant_model.package.load import load_package
from jobs.evaluating import naming
from jobs.evaluating.naming import name_fast, name_here
from tests.support.paths import ROOT
from tests.support.ray_cluster import RayCluster
from training.data.shards import StoredPictures, StoredRows, put_shard


@pytest.fixture
def joined(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a driver on the session's cluster."""
    for name, value in ray_cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(naming, "NAMED_HERE", 50)
    monkeypatch.setattr(naming, "TASK_PICTURES", 64)
    ray.init(address=ray_cluster.address, log_to_driver=False)
    yield
    ray.shutdown()


def stored(folder: Path, count: int, side: int) -> StoredPictures:
    """Blotches of many greys and sizes, in one shard."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (count, 4, 4), np.uint8)
    pictures_NB = np.kron(coarse, np.ones((side // 4, side // 4), np.uint8)).reshape(count, -1)
    shard = put_shard(str(folder), "pictures", pictures_NB)
    crc_N = np.array([zlib.crc32(row.tobytes()) for row in pictures_NB], np.uint32)
    at_N = np.arange(count, dtype=np.int32)
    return StoredPictures(
        StoredRows(str(folder), (shard,), np.zeros(count, np.int32), at_N, crc_N, side**2), side
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_names_pictures_as_this_process_does(joined: None, tmp_path: Path) -> None:
    package = load_package(str(ROOT / "models" / "phantom"))
    pictures = stored(tmp_path, 160, package.preprocessing.size_px)
    classifier = Classifier(package)
    here, there = name_here(classifier, pictures), name_fast(classifier, pictures)
    np.testing.assert_allclose(there.probabilities_NC, here.probabilities_NC, atol=1e-5)
    np.testing.assert_allclose(there.novelty_N, here.novelty_N, rtol=1e-4)
    assert there.candidates == here.candidates
    assert there.outcomes == here.outcomes
    assert len(np.unique(here.probabilities_NC[:, 0])) > 150  # one picture is not like another

    lost = stored(tmp_path / "lost", 60, package.preprocessing.size_px)
    (tmp_path / "lost" / lost.rows.shards[0].name).unlink()
    with pytest.raises(StorageError, match=r"^\S+\.arrow cannot be read \(No such file"):
        name_fast(classifier, lost)


def test_few_pictures_are_named_here(small_package: Path, tmp_path: Path) -> None:
    package = load_package(str(small_package))
    found = name_fast(Classifier(package), stored(tmp_path, 3, package.preprocessing.size_px))
    assert found.probabilities_NC.shape == (3, len(package.catalogue))
    assert not ray.is_initialized()
