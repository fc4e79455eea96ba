"""The commands, `python -m jobs.NAME`, and what they are made of."""

import sys
from importlib.util import find_spec

NEEDED = ("boto3", "cv2", "deltalake", "numpy", "pyarrow", "pydicom", "ray", "torch")


def _check_environment() -> None:
    """End with one sentence where this Python lacks the project's packages.

    The one thing that happens at import, since `python -m` gives no other place before a command's
    own imports, which would end in a traceback: so does a job that is submitted to a cluster which
    was started outside the project's environment.

    Raises:
        SystemExit: With exit code 2.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.stderr.write(
            f"This Python ({sys.executable}) lacks {', '.join(missing)}: it is not the project's "
            "environment. On this machine run .venv/bin/python; of a cluster, start Ray from an "
            "environment with requirements.lock, or give the job one, see docs/operations.md.\n"
        )
        raise SystemExit(2)


_check_environment()
