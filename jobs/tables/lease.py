"""One run at a time on an output, to save work; nothing that is promised depends on it.

The lease is a small object that its holder rewrites every few seconds. Whoever finds one watches it
instead of comparing clocks: if it changes, its holder is alive; if it does not, its holder is dead.
"""

import json
import os
import threading
import time
from types import TracebackType
from typing import Final, Self

from implant_model import storage
from implant_model.errors import BusyError, StorageError

RENEW_S: Final = 5.0
WATCH_S: Final = 20.0
_FREE: Final = "free"


class Lease:
    """Holds the lease of an output while the context is open.

    Args:
        output: Normalised URI.
        run: Identity of this run.

    Raises:
        BusyError: On entering, if another run holds it and is alive.
    """

    def __init__(self, output: str, run: str) -> None:
        self._uri = storage.join(output, "_lease")
        self._output = output
        self._run = run
        self._beat = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    def check(self) -> None:
        """Refuse an output that another run is writing; writes nothing.

        Raises:
            BusyError: Another run holds the lease and is alive.
        """
        found = self._read()
        if found is not None and found["state"] != _FREE and not _is_dead_here(found):
            self._watch(found)

    def __enter__(self) -> Self:
        self.check()
        self._write("held")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self._write(_FREE)
        except StorageError:
            return  # whoever comes next sees that it does not change, and takes it

    def _watch(self, found: dict[str, object]) -> None:
        deadline = time.monotonic() + WATCH_S
        while time.monotonic() < deadline:
            time.sleep(RENEW_S / 5)
            now = self._read()
            if now is None or now["state"] == _FREE:
                return
            if now != found:
                raise BusyError(
                    f"Another run ({now['run']} on {now['host']}) is writing {self._output}; "
                    "try again when it has ended."
                )

    def _read(self) -> dict[str, object] | None:
        if storage.exists(self._uri) is None:
            return None
        try:
            found = json.loads(storage.read_bytes(self._uri, max_bytes=4096))
        except (ValueError, StorageError):
            return None  # half written or foreign: it protects nothing
        is_lease = isinstance(found, dict) and {"state", "run", "host"} <= found.keys()
        return found if is_lease else None

    def _write(self, state: str) -> None:
        self._beat += 1
        lease = {
            "state": state,
            "run": self._run,
            "beat": self._beat,
            "host": os.uname().nodename,
            "pid": os.getpid(),
        }
        storage.overwrite(self._uri, json.dumps(lease).encode())

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                self._write("held")
            except StorageError:
                continue  # a missed beat costs at most that another run starts


def _is_dead_here(lease: dict[str, object]) -> bool:
    """Return whether the holder ran on this host and its process has gone."""
    pid = lease.get("pid")
    if lease["host"] != os.uname().nodename or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
