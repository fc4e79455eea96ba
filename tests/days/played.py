"""What each page of docs/days needs before it is played, and its playing."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from jobs.samples.demonstration import NUM_EACH
from jobs.samples.sample_archives import make_samples
from tests.days.transcript import Step, play
from tests.support.object_store import running_object_store
from tests.support.paths import ROOT
from tests.support.ray_cluster import running_cluster

DAYS: Final = {page.stem: page for page in sorted((ROOT / "docs" / "days").glob("*.md"))}
_TIMEOUT_S: Final = 1800
_IN_THE_PAGE: Final = "http://127.0.0.1:8265"


def _environment(**more: str) -> dict[str, str]:
    left_out = ("RAY_ADDRESS", "IMPLANT_KEY_FILE")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {n: v for n, v in os.environ.items() if n not in left_out} | {"PATH": path} | more


def _make_demo(folder: Path) -> None:
    command = [sys.executable, "-m", "jobs.demo", "--output", str(folder / "demo-output")]
    subprocess.run(
        command, cwd=ROOT, env=_environment(), timeout=_TIMEOUT_S, check=True, capture_output=True
    )


def _make_archives(folder: Path) -> None:
    make_samples(folder / "demo-output", NUM_EACH)


def analyst(folder: Path) -> list[Step]:
    """On what `make demo` leaves."""
    _make_demo(folder)
    return play(DAYS["analyst"], folder, _environment(), _TIMEOUT_S)


def engineer(folder: Path) -> list[Step]:
    """On the demo's archives, with an object store and a cluster of its own."""
    _make_archives(folder)
    with running_object_store(folder / "moto.log") as store:
        for bucket in ("pacs", "registry"):
            store.client().create_bucket(Bucket=bucket)
        with running_cluster(folder / "ray.log", store.environment) as cluster:
            instead = {
                _IN_THE_PAGE: cluster.jobs,
                "/tmp/implant.prom": str(folder / "implant.prom"),
            }
            environment = _environment(**store.environment)
            return play(DAYS["engineer"], folder, environment, _TIMEOUT_S, instead)


def researcher(folder: Path) -> list[Step]:
    """On the demo's archives and its labels."""
    _make_archives(folder)
    return play(DAYS["researcher"], folder, _environment(), _TIMEOUT_S)


PLAYERS: Final[Mapping[str, Callable[[Path], list[Step]]]] = {
    "analyst": analyst,
    "engineer": engineer,
    "researcher": researcher,
}
