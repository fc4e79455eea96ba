"""A Ray runtime environment in which a marked member kills the worker that touches it.

`RAY_RUNTIME_ENV_HOOK=tests.support.deadly_members.deadly` gives it to every worker of a
driver. Nothing of the program is replaced: its functions are called, unless a mark is seen.
"""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.paths import ROOT

KILLS_READER = b"this member kills who reads it"
TALLY = "DEADLY_MEMBERS_TALLY"
"""Names a file that gets a byte for each death."""
SIDE_PX = 80


def deadly(runtime_env: dict[str, Any] | None) -> dict[str, Any]:
    """The hook for the driver."""
    hook = "tests.support.deadly_members.arm"  # found before the driver's path reaches the worker
    variables = {TALLY: os.environ[TALLY], "PYTHONPATH": str(ROOT)}
    return {**(runtime_env or {}), "worker_process_setup_hook": hook, "env_vars": variables}


def kills_classifier() -> np.ndarray:
    """Pixels of a picture that kills the classifier: black on the left and white on the right."""
    pixels = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    pixels[:, SIDE_PX // 2 :] = 255
    return pixels


def arm() -> None:
    """Runs in each worker before its first task."""
    from implant_model.compiled_classifier import CompiledClassifier
    from implant_model.decode.sandbox import DecodeProcess

    prepare, classify = DecodeProcess.prepare, CompiledClassifier.classify

    def deadly_prepare(self: DecodeProcess, data: bytes | memoryview) -> Any:
        if KILLS_READER in bytes(data):
            _die()
        return prepare(self, data)

    def deadly_classify(self: CompiledClassifier, images_NHW: np.ndarray, *rest: Any) -> Any:
        half = images_NHW.shape[2] // 2
        left = images_NHW[:, :, : half - 2].reshape(len(images_NHW), -1)
        right = images_NHW[:, :, half + 2 :].reshape(len(images_NHW), -1)
        if np.any((left.max(1) < 10) & (right.min(1) > 245)):
            _die()
        return classify(self, images_NHW, *rest)

    DecodeProcess.prepare = deadly_prepare  # type: ignore[method-assign]
    CompiledClassifier.classify = deadly_classify  # type: ignore[method-assign,assignment]


def _die() -> None:
    with Path(os.environ[TALLY]).open("ab") as tally:
        tally.write(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
