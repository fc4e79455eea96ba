"""What the stages ask of a cluster, whatever that has or may have."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from ray.data import Dataset
from safetensors.numpy import load, save

from implant_model.classifier import Classifier
from implant_model.compiled_classifier import CompiledClassifier
from implant_model.errors import ImplantError, PackageError, UsageError
from implant_model.package.conversion import check_and_convert
from implant_model.package.load import load_package
from jobs.pipeline import stages
from jobs.pipeline.blocks import block_table, read_block
from jobs.pipeline.stages import ClassifyBlock, Model, Resources, choose_resources
from jobs.tables.receipts import Counts, Fault, Published, UnitFile, dump_receipts
from jobs.tables.schema import PREDICTION_ROW
from tests.support.ray_cluster import run_python

PLACE = """
import json, ray
from jobs.pipeline.stages import choose_resources
ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False)
asked = choose_resources(None, 0.5, None)

@ray.remote(num_cpus=asked.actor_cpus, num_gpus=asked.gpus_per_actor)
class Actor:
    def gpu(self):
        return ray.get_gpu_ids()[0]

actors = [Actor.remote() for _ in range(asked.max_actors)]
print(json.dumps(sorted(ray.get([actor.gpu.remote() for actor in actors], timeout=120))))
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the cluster has or may have; tests fill it in. It is not one that grows."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    has: dict[str, float] = {}
    monkeypatch.setattr(stages, "possible_resources", lambda: has)
    return has


@pytest.mark.parametrize(
    ("cpus", "max_actors", "read_tasks", "max_publishers", "max_waiting", "large_blocks"),
    [
        (1, 1, 16, 1, 16, False),
        (2, 1, 32, 1, 32, False),
        (8, 4, 128, 1, 128, False),
        (128, 64, 2048, 16, 2048, True),
    ],
)
def test_without_a_gpu_readers_and_actors_share_the_cores(
    cluster: dict[str, float],
    cpus: int,
    max_actors: int,
    read_tasks: int,
    max_publishers: int,
    max_waiting: int,
    large_blocks: bool,
) -> None:
    cluster |= {"CPU": cpus}
    asked = choose_resources(None, None, 7)
    actors, shares = (1, max_actors), (0.0, 0.5, 0.5)
    most = (read_tasks, max_publishers, max_waiting)
    assert asked == Resources(*actors, *shares, 7, *most, large_blocks=large_blocks)


@pytest.mark.parametrize(
    ("cpus", "gpus", "gpus_per_actor", "taken", "max_actors", "share"),
    [
        (16, 1, None, 1.0, 1, 1.0),
        (16, 4, None, 1.0, 4, 1.0),
        (16, 2, 0.25, 0.25, 8, 1.0),
        (16, 4, 2.0, 2.0, 2, 1.0),
        (1, 1, None, 1.0, 1, 0.5),  # one core: a reader and an actor have to share it
        (16, 1, 0.0, 0.0, 8, 0.5),  # a GPU is there and not wanted
    ],
)
def test_each_gpu_has_its_actors(
    cluster: dict[str, float],
    cpus: int,
    gpus: int,
    gpus_per_actor: float | None,
    taken: float,
    max_actors: int,
    share: float,
) -> None:
    cluster |= {"CPU": cpus, "GPU": gpus}
    asked = choose_resources(None, gpus_per_actor, None)
    assert (asked.min_actors, asked.max_actors, asked.gpus_per_actor) == (1, max_actors, taken)
    assert asked.read_cpus == asked.actor_cpus == share
    assert asked.large_blocks == (taken > 0)


def test_actors_that_are_named_are_taken(cluster: dict[str, float]) -> None:
    cluster |= {"CPU": 2}
    asked = choose_resources((3, 5), None, None)
    assert (asked.min_actors, asked.max_actors) == (3, 5)


@pytest.mark.parametrize("has", [{}, {"CPU": 0.0}])
def test_gpus_of_a_cluster_that_grows_may_still_come(
    cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch, has: dict[str, float]
) -> None:
    """cluster.yaml's: a head without a core, both groups at none."""
    cluster |= has
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose_resources(None, 1.0, None).max_actors == 1
    asked = choose_resources((1, 2), 1.0, None)
    assert (asked.max_actors, asked.gpus_per_actor, asked.read_tasks) == (2, 1.0, 16)
    assert asked.read_cpus == asked.actor_cpus == 1.0


@pytest.mark.parametrize(("gpus", "asked"), [(0, 1.0), (0, 0.5), (1, 2.0)])
def test_gpus_that_are_not_there_are_refused(
    cluster: dict[str, float], gpus: int, asked: float
) -> None:
    cluster |= {"CPU": 4, "GPU": gpus} if gpus else {"CPU": 4}
    with pytest.raises(UsageError, match=f"--gpus-per-actor {asked:g} asks .* has {gpus}. Leave"):
        choose_resources(None, asked, None)


@pytest.mark.cluster
def test_ray_places_what_is_asked_for_on_gpus() -> None:
    """Two GPUs that are only declared: Ray places, and nothing is computed on them."""
    done = run_python("-c", PLACE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, 1, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_cannot_be_used_is_a_sentence(
    small_package: Path, cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster |= {"CPU": 4, "GPU": 1}
    monkeypatch.setattr(ray, "get", lambda model: model)
    package = load_package(str(small_package))
    model: Any = Model(package)
    actor = ClassifyBlock(model, "float32", choose_resources(None, None, None))
    answer = actor(block_table([], PREDICTION_ROW.empty_table()))
    ((fault,), _, _) = read_block(answer, package.preprocessing.size_px)
    assert isinstance(fault, Fault)
    assert fault.at_start
    assert fault.fault.startswith("A GPU cannot run the networks: ")
    assert "\n" not in fault.fault


@pytest.mark.parametrize(("published_first", "kind"), [(False, PackageError), (True, ImplantError)])
def test_fault_of_one_node_is_no_mistake_of_the_call_once_rows_are_published(
    published_first: bool, kind: type[ImplantError]
) -> None:
    """Exit code 2 says that nothing was written."""
    unit = UnitFile("model=m/u.parquet", 0, 1, 10, "0" * 64)
    published = [Published(0, unit, 10, Counts())] if published_first else []
    fault = Fault("There is no key on this node.", at_start=True)
    tables = [pa.table({"receipts": [dump_receipts(each)]}) for each in (published, [fault])]
    dataset = SimpleNamespace(iter_batches=lambda **_: iter(tables))
    with pytest.raises(ImplantError, match="no key on this node") as caught:
        list(stages.receipts(cast(Dataset, dataset)))
    assert type(caught.value) is kind


def test_an_actor_on_cpus_needs_no_torch_and_keeps_to_it_where_it_must(
    small_package: Path, cluster: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster |= {"CPU": 4}
    monkeypatch.setattr(ray, "get", lambda model: model)
    package = load_package(str(small_package))
    converted = check_and_convert(package)
    assert converted is not None
    arrays = load(converted)
    arrays["0.expected"] += 1
    actors = [
        ClassifyBlock(cast(Any, Model(package, given)), "float32", choose_resources(None, None, 4))
        for given in (converted, save(arrays), converted[:-1], None)
    ]
    kinds = [type(getattr(actor._classifier, "__self__", None)) for actor in actors]
    assert kinds == [CompiledClassifier, Classifier, Classifier, Classifier]
    size_px = package.preprocessing.size_px
    images = np.random.default_rng(0).integers(0, 256, (6, size_px, size_px), np.uint8)
    said = [actor._classify(images).probabilities_NC for actor in actors]
    for each in said[1:]:
        np.testing.assert_allclose(each, said[0], atol=1e-5)
