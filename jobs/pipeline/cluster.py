"""The Ray cluster of a job: the one it was submitted to, or one of its own."""

import logging
import os
import signal

import ray


def start_ray() -> None:
    """Joins the cluster of `RAY_ADDRESS` (`ray job submit` sets it), or starts a local one."""
    if ray.is_initialized():
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        ray.init(
            address="local",
            include_dashboard=False,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, on_sigterm)  # ray.init has put one there that only exits
