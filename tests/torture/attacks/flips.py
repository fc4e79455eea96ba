"""Attacks on stored bytes: a flipped bit anywhere in an output or a model package is named."""

import random
from pathlib import Path
from typing import Final

from implant_model import storage
from implant_model.errors import ImplantError
from implant_model.package.load import check_weights, load_package
from jobs.tables.verification import verify_output
from tests.support.sample_output import OTHER_MODEL, publish_sample
from tests.support.small_package import save_small_package
from tests.torture.tally import Tally

SHARE_OF_MODEL: Final = 0.2
"""Of the flips, so many hit the model package."""


def flip_bits(folder: Path, *, thorough: bool = False) -> Tally:
    """Random flips in data files, logs, checksums and a model's files: each is named.

    Args:
        folder: An empty one to work in.
        thorough: 500 flips instead of 60.
    """
    tally, rng = Tally("flipped bits in tables, logs and model files"), random.Random(0)
    (folder / "tables").mkdir(parents=True)
    output = publish_sample(folder / "tables")
    publish_sample(folder / "tables", OTHER_MODEL)
    tally.check("no flip", verify_output(output).findings == (), verify_output(output).findings)
    package = save_small_package(folder / "model")
    files = {"tables": _files(folder / "tables" / "out"), "model": _files(folder / "model")}
    for _ in range(500 if thorough else 60):
        if rng.random() < SHARE_OF_MODEL:
            path = rng.choice(files["model"])
            with _flipped(path, rng):
                found = _load(folder / "model", package.id)
        else:
            path = rng.choice(files["tables"])
            with _flipped(path, rng):
                found = _verify(output)
        name = path.name.removesuffix(".json")
        tally.check(path.relative_to(folder), name in found, found[:200] or "not seen")
    return tally


def _verify(output: str) -> str:
    try:
        return "\n".join(verify_output(output).findings)
    except ImplantError as error:
        return str(error)


def _load(folder: Path, model: str) -> str:
    """What loading states; a manifest that still makes sense is that of another model."""
    try:
        loaded = load_package(storage.normalise(str(folder)))
        check_weights(loaded)
    except ImplantError as error:
        return str(error)
    return f"package: another model, {loaded.id}" if loaded.id != model else ""


class _flipped:
    """One bit of a file is wrong while the context is open."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        self._path = path
        self._whole = path.read_bytes()
        self._bit = rng.randrange(8 * len(self._whole))

    def __enter__(self) -> None:
        data = bytearray(self._whole)
        data[self._bit // 8] ^= 1 << self._bit % 8
        self._path.write_bytes(data)

    def __exit__(self, *_: object) -> None:
        self._path.write_bytes(self._whole)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != "_")
