"""Fixtures that more than one test module uses."""

from tests.fault_proxy import fault_proxy as fault_proxy
from tests.fault_proxy import shared_fault_proxy as shared_fault_proxy
from tests.object_store import bucket as bucket
from tests.object_store import object_store as object_store
from tests.ray_cluster import ray_cluster as ray_cluster
from tests.shoulder import shoulder_radiographs as shoulder_radiographs
from tests.small_package import small_package as small_package
