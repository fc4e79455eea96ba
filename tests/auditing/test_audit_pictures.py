"""Radiographs and saliency in the page, where they are asked for; read again from the archive."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from implant_model import storage
from implant_model.errors import Outcome
from implant_model.package.catalogue import ORTHONET
from implant_model.phantoms.files import write_png
from implant_model.phantoms.render import render
from jobs import audit as job
from jobs.tables import delta
from jobs.tables.schema import ARCHIVE_ROW, ARCHIVES
from tests.support.archive_samples import tar_of
from tests.support.audit_samples import write_output, write_registry
from tests.support.small_package import MAKERS, save_small_package

NAMES = [maker.lower() for maker in MAKERS]


def states(name: str, study: str) -> dict[str, Any]:
    """A row that names an implant of the small package."""
    others = [other for other in NAMES if other != name][:2]
    return {
        "study": study,
        "outcome": "identified",
        "implant": name,
        "manufacturer": MAKERS[NAMES.index(name)],
        "joint": "shoulder",
        "probability": 0.95,
        "candidates": [name],
        "top": [
            {"implant": n, "probability": 0.95 if n == name else 0.02} for n in (name, *others)
        ],
    }


def write_archive(path: Path, count: int) -> None:
    pictures = [render(ORTHONET[n], np.random.default_rng(n), 96) for n in range(count)]
    path.write_bytes(tar_of({f"{n}.png": write_png(picture) for n, picture in enumerate(pictures)}))


def archive_row(path: Path, model: str, version: str) -> dict[str, Any]:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    return {
        "archive": "01.tar",
        "archive_version": version,
        "source": storage.normalise(str(path)),
        "bytes": path.stat().st_size,
        "members": 3,
        **{str(outcome): 0 for outcome in Outcome},
        "status": "complete",
        "units": [],
        "reasons": [],
        "attempt": 0,
        "run": "run",
        "started_at": now,
        "finished_at": now,
        "software_version": "0.1.0",
        "configuration_hash": "c0ffee",
        "model": model,
    }


def test_pictures_of_the_first_contradictions(tmp_path: Path) -> None:
    package = save_small_package(tmp_path / "package")
    tar = tmp_path / "01.tar"
    write_archive(tar, 3)
    version = storage.stat(storage.normalise(str(tar))).version
    rows = [
        {**states(name, f"S{n}"), "archive_version": version}
        for n, name in enumerate(("zimmer", "depuy", "zimmer"))
    ]
    output = write_output(tmp_path / "out", rows, package.id)
    archives = pa.Table.from_pylist([archive_row(tar, package.id, version)], ARCHIVE_ROW)
    delta.commit(storage.join(output, ARCHIVES), lambda table: delta.write_rows(table, archives))
    records = [{"study": f"S{n}", "implant": "Tornier" if n else "Zimmer"} for n in range(3)]
    registry = write_registry(tmp_path / "r.csv", records)
    call = ["--predictions", output, "--registry", registry, "--model", str(tmp_path / "package")]
    assert job.main([*call, "--report", str(tmp_path / "plain")]) == 0
    assert "<img" not in (tmp_path / "plain" / "audit.html").read_text()
    assert job.main([*call, "--report", str(tmp_path / "one"), "--pictures", "1"]) == 0
    assert (tmp_path / "one" / "audit.html").read_text().count("data:image/png;base64,") == 1
    assert job.main([*call, "--report", str(tmp_path / "all"), "--pictures", "9"]) == 0
    page = (tmp_path / "all" / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Beside 2 of them is the radiograph" in page
    write_archive(tar, 2)  # another version: what was audited is not there any more
    assert job.main([*call, "--report", str(tmp_path / "gone"), "--pictures", "9"]) == 0
    assert "<img" not in (tmp_path / "gone" / "audit.html").read_text()
