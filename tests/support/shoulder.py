"""The real radiographs that some tests read: 477 shoulders, outside the repository."""

import csv

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT.parent / "shared" / "data" / "shoulder"


@pytest.fixture(scope="session")
def shoulder_radiographs() -> dict[str, bytes]:
    """JPEG files by name; the name begins with the manufacturer."""
    if not FOLDER.is_dir():
        pytest.skip(f"the real radiographs are not there: {FOLDER}")
    with (FOLDER / "labels.csv").open(newline="") as file:
        names = sorted(row["file"] for row in csv.DictReader(file))
    return {name: (FOLDER / "images" / name).read_bytes() for name in names}
