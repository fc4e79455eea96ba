"""The torture set through the whole job on the tests' cluster and object store."""

from pathlib import Path

import pytest

from tests.support.ray_cluster import RayCluster
from tests.torture.attacks.whole_job import torture_job


@pytest.mark.slow
@pytest.mark.cluster
def test_whole_job_gives_each_case_its_row(
    bucket: str, ray_cluster: RayCluster, small_package: Path
) -> None:
    tally = torture_job(f"s3://{bucket}/torture", str(small_package), ray_cluster.run)
    assert tally.tried > 500
    assert tally.failures == []
