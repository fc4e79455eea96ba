"""What `doctor` finds on each node of a Ray cluster: other versions, and no room to spill."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from implant_model.errors import UsageError
from jobs.checks.machine import FLOORS
from jobs.entry.cluster import start_ray

NODES_S: Final = 60.0
"""All nodes are asked at once and have so long; a process that imports Ray takes some seconds."""
SOFTWARE: Final = "implant_model"


@dataclass(frozen=True)
class Answer:
    """What a node said.

    Attributes:
        versions: Of each package; None for one that is missing.
        spill: Ray's temporary folder there.
        free: Bytes free in it.
    """

    versions: Mapping[str, str | None]
    spill: str
    free: int


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        address: Its own.
        wanted: Bytes that Ray keeps in its memory, as many as must fit on its disk.
        answer: What it said, or why it did not, a clause.
    """

    address: str
    wanted: float
    answer: Answer | str


def check_nodes(address: str) -> Iterator[str]:
    """Yield nodes with other versions than here, without room to spill, or without an answer.

    Args:
        address: HOST:PORT of a cluster that answers; a job server's (http) cannot be asked.
    """
    if address.startswith("http"):
        return
    os.environ["RAY_ADDRESS"] = address
    try:
        start_ray()
    except UsageError as error:
        yield str(error)
        return
    here = teller()()["versions"]
    for node in ask_nodes():
        yield from judge_node(node, here)


def judge_node(node: Node, here: Mapping[str, str | None]) -> Iterator[str]:
    """Yield one sentence on the versions of a node, and one on its disk, where they are not right.

    This software may be missing: it comes with the job's working directory.
    """
    if isinstance(node.answer, str):
        yield f"Node {node.address} {node.answer}; look at it, or take it out of the cluster."
        return
    differ = [
        f"{package} {found or 'is missing'} where {wanted} is expected"
        for package, wanted in here.items()
        if wanted != (found := node.answer.versions.get(package))
        and not (package == SOFTWARE and found is None)
    ]
    if differ:
        yield (
            f"Node {node.address} has other packages than this machine ({'; '.join(differ)}); "
            "install requirements.lock on both."
        )
    if node.answer.free < node.wanted:
        yield (
            f"Ray on node {node.address} spills to {node.answer.spill}, which has "
            f"{node.answer.free / 1e9:.1f} GB free; {node.wanted / 1e9:.1f} GB, as much as it "
            "keeps in memory, are expected: name a folder on a larger disk by --temp-dir of "
            "ray start."
        )


def ask_nodes(timeout_s: float = NODES_S) -> list[Node]:
    """Ask all nodes that are alive, by one task on each that takes no CPU."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tell = ray.remote(num_cpus=0, max_retries=0)(teller())
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[tell.options(scheduling_strategy=there).remote()] = node
    done, late = ray.wait([*asked], num_returns=len(asked), timeout=timeout_s)
    for task in late:
        ray.cancel(task, force=True)
    said = {task: _answer(task) for task in done}
    silent = f"gave no answer within {timeout_s:g} seconds"
    return [
        Node(
            node["NodeManagerAddress"],
            node["Resources"].get("object_store_memory", 0.0),
            said.get(task, silent),
        )
        for task, node in asked.items()
    ]


def _answer(task: Any) -> Answer | str:
    import ray

    try:
        return Answer(**ray.get(task, timeout=NODES_S))
    except Exception as error:  # whatever it was, it is the node's, and is said
        last = (str(error).strip().splitlines() or [""])[-1]
        return f"cannot be asked ({type(error).__name__}: {last[:160].rstrip('.')})"


def teller() -> Callable[[], dict[str, Any]]:
    """Return a function that travels by value: a node need not have this software."""
    packages, software = tuple(FLOORS), SOFTWARE

    def tell() -> dict[str, Any]:
        import importlib
        import shutil
        from importlib import metadata

        import ray

        versions: dict[str, str | None] = {}
        for package in packages:
            try:
                versions[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[package] = None
        try:
            versions[software] = importlib.import_module(software).__version__
        except ImportError:
            versions[software] = None
        # There is no public way to a node's own temporary folder.
        node: Any = ray._private.worker._global_node
        folder = node.get_temp_dir_path()
        return {"versions": versions, "spill": folder, "free": shutil.disk_usage(folder).free}

    return tell
