"""Progress of a training, told from the file that its epochs are written to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 5.0


@contextmanager
def watched(
    curve: Path, name: str, epochs: int, say: Callable[[str], None], every_s: float = EVERY_S
) -> Iterator[None]:
    """Says a line whenever an epoch has ended, at most one each `every_s`, and the last.

    Args:
        curve: Gets a line of JSON for each epoch, with `epoch` and `loss`.
        name: What is trained, for the reader.
        epochs: How many there will be.
        say: Gets each line.
        every_s: Seconds between two looks at the file.
    """
    seen = _last(curve)
    ended = threading.Event()

    def look(before: int) -> int:
        line = _last(curve)
        if line > before:
            say(f"  {name}: epoch {line + 1} of {epochs}, loss {_loss(curve):.4f}")
        return line

    def watch() -> None:
        epoch = seen
        while not ended.wait(every_s):
            epoch = look(epoch)
        look(epoch)

    thread = threading.Thread(target=watch, name=f"watch {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _facts(curve: Path) -> dict[str, float]:
    """The last whole line; one that is being written has no end yet."""
    lines = curve.read_text().split("\n")[:-1] if curve.is_file() else []
    facts: dict[str, float] = json.loads(lines[-1]) if lines else {}
    return facts


def _last(curve: Path) -> int:
    return int(_facts(curve).get("epoch", -1))


def _loss(curve: Path) -> float:
    return float(_facts(curve).get("loss", float("nan")))
