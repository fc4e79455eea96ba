"""Fixtures that more than one test module uses; how the tests run side by side."""

from tests.support.fault_proxy import fault_proxy as fault_proxy
from tests.support.fault_proxy import shared_fault_proxy as shared_fault_proxy
from tests.support.object_store import bucket as bucket
from tests.support.object_store import object_store as object_store
from tests.support.ray_cluster import ray_cluster as ray_cluster
from tests.support.shoulder import shoulder_radiographs as shoulder_radiographs
from tests.support.small_package import small_package as small_package

pytest_plugins = ["tests.support.not_tried", "tests.support.parallel"]
