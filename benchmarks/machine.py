"""What machine a benchmark ran on, as one line."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Return processor, cores, memory and the versions that matter."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((x.split(":")[1].strip() for x in cpuinfo if x.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    load = os.getloadavg()[2]
    return (
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GB of memory, load {load:.1f} over the last "
        f"15 minutes; Linux {platform.release()}, Python {platform.python_version()}, Ray "
        f"{version('ray')}, torch {version('torch')}"
    )
