"""The share of time in which a GPU has work, as its driver sees it."""

import subprocess
import threading
import time
from collections.abc import Iterable
from typing import Final

from implant_model.errors import ImplantError

EVERY_MS: Final = 100
_COMMAND: Final = (
    "nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0",
    f"--loop-ms={EVERY_MS}",
)  # fmt: skip


class BusyGpu:
    """Watches the first GPU from its start to its end, as a context manager.

    Raises:
        ImplantError: From the start, if there is no `nvidia-smi`.
    """

    def __enter__(self) -> "BusyGpu":
        self._seen: list[tuple[float, float]] = []
        try:
            self._process = subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, text=True)
        except FileNotFoundError as error:
            raise ImplantError("There is no nvidia-smi to ask how busy the GPU is.") from error
        self._reader = threading.Thread(target=self._read, args=[self._process.stdout])
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def seconds(self, begun: float, ended: float) -> float:
        """Return busy seconds between two times of `time.monotonic`."""
        shares = [share for at, share in self._seen if begun <= at <= ended]
        return (ended - begun) * sum(shares) / len(shares) if shares else 0.0

    def _read(self, said: Iterable[str]) -> None:
        for line in said:
            if line.strip().isdigit():
                self._seen.append((time.monotonic(), int(line) / 100))
