"""An audit with radiographs, small and whole, for the tests of the workbench; made without Ray."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from implant_model import storage
from implant_model.errors import Outcome
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import ModelPackage
from implant_model.phantoms.files import write_dicom, write_png
from implant_model.phantoms.render import render
from jobs import audit as job
from jobs.tables import delta
from jobs.tables.schema import ARCHIVE_ROW, ARCHIVES
from tests.support.archive_samples import tar_of
from tests.support.audit_samples import write_output, write_registry
from tests.support.small_package import MAKERS, save_small_package

NAMES = [maker.lower() for maker in MAKERS]
EVERY = 3
"""Each so many-th record is wrong."""


@dataclass(frozen=True)
class Reviewed:
    """What was made.

    Attributes:
        folder: Of the audit.
        archive: The tar with the radiographs, in the order of the records, two of each.
        package: Folder of the package.
        output: URI of the predictions.
        truths: The implant of each record.
        wrong: Rows of the wrong records.
    """

    folder: Path
    archive: Path
    package: Path
    output: str
    truths: list[str]
    wrong: list[int]

    @property
    def call(self) -> list[str]:
        return ["--audit", str(self.folder), "--model", str(self.package)]


def radiograph(number: int, size_px: int = 96, *, dicom: bool = False) -> bytes:
    phantom = render(ORTHONET[number % 12], np.random.default_rng(number), size_px)
    if dicom:
        return write_dicom(phantom, np.random.default_rng(number))
    return write_png(phantom)


def predicted(name: str, study: str, instance: str) -> dict[str, Any]:
    """A row that names an implant of the small package."""
    others = [other for other in NAMES if other != name][:2]
    return {
        "study": study,
        "instance": instance,
        "outcome": "identified",
        "implant": name,
        "manufacturer": MAKERS[NAMES.index(name)],
        "joint": "shoulder",
        "probability": 0.95,
        "candidates": [name],
        "novelty": 3.5,
        "modality": "DX",
        "view": "AP",
        "rows": 96,
        "columns": 96,
        "top": [
            {"implant": n, "probability": 0.95 if n == name else 0.02} for n in (name, *others)
        ],
    }


def archive_row(path: Path | str, model: ModelPackage, members: int) -> dict[str, Any]:
    numbers = [field.name for field in ARCHIVE_ROW if pa.types.is_integer(field.type)]
    info = storage.stat(storage.normalise(str(path)))
    moment = "2026-01-31T00:00:00+00:00"
    row: dict[str, Any] = dict.fromkeys(numbers, 0) | dict.fromkeys(map(str, Outcome), 0)
    return row | {
        "archive": "01.tar", "archive_version": info.version, "source": info.uri,
        "bytes": info.size, "members": members, "status": "complete", "units": [], "reasons": [],
        "run": "r", "started_at": _time(moment), "finished_at": _time(moment),
        "software_version": "0", "configuration_hash": "c", "model": model.id, "key_id": None,
    }  # fmt: skip


def _time(text: str) -> Any:
    from datetime import datetime

    return datetime.fromisoformat(text)


def make_reviewed(
    folder: Path,
    count: int = 9,
    size_px: int = 96,
    *,
    more: tuple[str, ...] = (),
    pictures: Sequence[bytes] = (),
    placed: Callable[[Path], str] = str,
    **texts: str,
) -> Reviewed:
    """Makes an audit of so many records, each of two radiographs.

    Args:
        folder: Where.
        count: Records.
        size_px: Of the radiographs.
        more: Of the call of jobs.audit.
        pictures: The radiographs, two of each record; () for phantoms.
        placed: Puts the archive where it is classified; gives its URI.
        texts: What every record of the registry's file has beside its own.
    """
    package = save_small_package(folder / "package")
    truths = [NAMES[n % len(NAMES)] for n in range(count)]
    pictures = pictures or [radiograph(n, size_px, dicom=n % 2 == 1) for n in range(2 * count)]
    archive = folder / "01.tar"
    archive.write_bytes(tar_of({f"{n}.bin": data for n, data in enumerate(pictures)}))
    row = archive_row(placed(archive), package, 2 * count)
    rows = [
        {**predicted(truths[n // 2], f"S{n // 2}", f"I{n}"),
         "archive_version": row["archive_version"]}
        for n in range(2 * count)
    ]  # fmt: skip
    output = write_output(folder / "out", rows, package.id)
    archives = pa.Table.from_pylist([row], ARCHIVE_ROW)
    delta.commit(storage.join(output, ARCHIVES), lambda table: delta.write_rows(table, archives))
    wrong = [n for n in range(count) if n % EVERY == 0]
    records = [
        {
            "record": f"R{n}",
            "study": f"S{n}",
            "implant": MAKERS[(NAMES.index(truths[n]) + (n in wrong)) % len(MAKERS)],
            "hospital": f"Hospital {n % 2}",
            "year": 2020,
            **texts,
        }
        for n in range(count)
    ]
    registry = write_registry(folder / "records.csv", records)
    report = folder / "audit"
    call = ["--predictions", output, "--registry", registry, "--report", str(report)]
    job.main([*call, "--model", str(folder / "package"), *more])
    return Reviewed(report, archive, folder / "package", output, truths, wrong)


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def png(data: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image
