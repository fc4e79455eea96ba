"""Whether a training's workers find room on the cluster, and on what they run."""

from collections.abc import Callable

from implant_model.errors import UsageError
from jobs.entry.cluster import may_grow, possible_resources


def place_workers(workers: int, say: Callable[[str], None]) -> bool:
    """Finds room for workers, each of which holds one GPU or one CPU from beginning to end.

    Args:
        workers: Of one training.
        say: Gets a line where the cluster must grow first: Ray waits for that without end.

    Returns:
        Whether they hold GPUs: where the cluster has one for each.

    Raises:
        UsageError: There is no room for them, nor will there be.
    """
    import ray

    if ray.cluster_resources().get("GPU", 0) >= workers:
        return True
    cpus = possible_resources().get("CPU", 0)
    if cpus >= workers:
        return False
    if not may_grow():
        raise UsageError(
            f"--workers {workers} ask for a CPU each, and this machine has {cpus:g}; ask for no "
            "more than that, or submit the training to a cluster."
        )
    say(
        f"--workers {workers} ask for a CPU each, and the cluster has {cpus:g}: nothing is trained "
        "until it has grown; if it cannot, stop this and ask for fewer."
    )
    return False
