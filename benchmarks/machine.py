"""What machine a benchmark ran on, what memory its process took; a benchmark of one line, told."""

import json
import os
import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


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


def peak_bytes() -> int:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def apart(*arguments: str) -> Any:
    """Return what Python prints as JSON in a process of its own, called with these arguments."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def tell(page: Path, title: str, call: str, line: str) -> None:
    """Print the line that a benchmark found; write it to a page, with call, day and machine."""
    text = f"`{call}`, {datetime.now(UTC):%Y-%m-%d}: {line}\n\nMachine: {machine()}.\n"
    page.write_text(f"# {title}\n\n{text}", encoding="utf-8")
    print(line)
