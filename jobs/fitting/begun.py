"""What a training was begun with, so that it is never gone on with by mistake as another one.

`training.json` in the training's working folder holds the settings and digests of images, labels
and masks. A training is refused where one was begun and --resume is missing, and with --resume
where none was begun, or one of other settings, images or labels.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from implant_model.errors import UsageError
from implant_model.storage.local_files import make_private, write_whole
from training.config import TrainConfig

FILE: Final = "training.json"
_LEFT_BY_FITS: Final = ("checkpoints", "*.jsonl", "*.safetensors")
_NOT_FITTED: Final = ("name", "data", "card", "gallery", "implants")
"""Settings that only describe the package, or where images lie; they may change meanwhile."""


def fitted_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide the networks, as plain values."""
    document = config.to_json()
    return {name: value for name, value in document.items() if name not in _NOT_FITTED}


def is_begun(work: Path) -> bool:
    """Return whether a training has left something in its working folder to go on with."""
    return (work / FILE).is_file() or _is_fitted(work)


def _is_fitted(work: Path) -> bool:
    return any(any(work.glob(name)) for name in _LEFT_BY_FITS)


def check_begun(work: Path, config: TrainConfig, workers: int | str, *, resume: bool) -> None:
    """Refuse to begin where a training was begun, and to go on with none or with another one.

    Args:
        work: The training's working folder.
        config: Its settings.
        workers: How many fit, as `Workers.to_json` gives it.
        resume: Whether it is to go on.

    Raises:
        UsageError: See above.
    """
    if is_begun(work) != resume:
        raise UsageError(_nothing_begun(work) if resume else _begun_already(work))
    before = _read(work)
    if not before:
        return  # nothing was begun, or by a version that kept no record
    now = {**fitted_settings(config), "--workers": workers}
    changed = [*_differences({**before["settings"], "--workers": before["workers"]}, now, "")]
    if changed:
        raise UsageError(
            f"{work} holds a training of other settings: {'; '.join(changed[:5])}. To go on, use "
            "the same again; to train with these, choose another --output or remove that folder."
        )


def _begun_already(work: Path) -> str:
    return (
        f"{work} holds a training that was begun; go on with --resume, or remove that folder to "
        "begin anew."
    )


def _nothing_begun(work: Path) -> str:
    there = sorted(path for path in work.parent.glob("*.work") if is_begun(path))
    begun = ", ".join(path.name.removesuffix(".work") for path in there[:5])
    return f"There is nothing to resume at {work}; " + (
        f"trainings that were begun there are of the outputs {begun}."
        if begun
        else "leave --resume out to begin a training."
    )


def _differences(before: object, now: object, name: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            below = f"{name}.{key}" if name else key
            yield from _differences(before.get(key), now.get(key), below)
    elif before != now:
        yield f"{name} was {_shown(before)} and is {_shown(now)}"


def _shown(value: object) -> str:
    return "its default" if value is None else json.dumps(value)


@contextlib.contextmanager
def begun(work: Path, config: TrainConfig, workers: int | str) -> Iterator[None]:
    """Keep a record that a training is begun; drop it if the set is then refused.

    Args:
        work: The training's working folder.
        config: Its settings.
        workers: How many fit, as `Workers.to_json` gives it.

    Raises:
        UsageError: Another process trains in the folder.
    """
    make_private(work)
    with _held(work):
        yield from _recorded(work, config, workers)


def _recorded(work: Path, config: TrainConfig, workers: int | str) -> Iterator[None]:
    was_there = is_begun(work)
    if not (work / FILE).is_file():
        _write(work, {"settings": fitted_settings(config), "workers": workers})
    try:
        yield
    except UsageError:
        if not was_there and not _is_fitted(work):
            (work / FILE).unlink()
            with contextlib.suppress(OSError):  # prepared images serve the next attempt
                work.rmdir()
        raise


@contextlib.contextmanager
def _held(work: Path) -> Iterator[None]:
    """Hold the folder against a second driver, whose checkpoints and losses would mix with ours.

    Raises:
        UsageError: Another process of this machine trains in it.
    """
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(folder)
        raise UsageError(
            f"Another process trains in {work}; wait for its end, or choose another --output."
        ) from error
    except OSError:
        pass  # a file system without locks of folders
    try:
        yield
    finally:
        os.close(folder)


def check_same(work: Path, what: Literal["images and labels", "masks"], digest: str) -> None:
    """Keep the digest of what a training is fitted to, or refuse another than is kept.

    Raises:
        UsageError: It differs.
    """
    record = _read(work)
    kept = record.setdefault(what, digest)
    if kept != digest:
        raise UsageError(
            f"The {what} are not those that the training in {work} was begun with, or some of them "
            "cannot be read now. To train with these, choose another --output or remove that "
            "folder."
        )
    _write(work, record)


def _read(work: Path) -> dict[str, Any]:
    file = work / FILE
    try:
        record = json.loads(file.read_bytes()) if file.is_file() else {}
    except ValueError as error:
        raise _damaged(work) from error
    if not isinstance(record, dict) or (record and not _is_record(record)):
        raise _damaged(work)
    return record


def _is_record(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("settings"), dict) and "workers" in record


def _damaged(work: Path) -> UsageError:
    return UsageError(f"{work / FILE} is damaged; remove {work} and begin anew.")


def _write(work: Path, record: Mapping[str, Any]) -> None:
    write_whole(work / FILE, json.dumps(record, indent=1).encode() + b"\n")
