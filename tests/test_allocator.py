import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from implant_model.allocator import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(5)
def faults():
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        [np.ones(24 << 20, np.uint8) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
faults()
print(faults())
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=False
    )
    if done.returncode == 5:
        pytest.skip("no glibc")
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    assert faults("kept") < 100
    assert faults("given back") > 5000
