"""The real radiographs that some tests read: 477 shoulders, outside the repository."""

import csv
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "shoulder"


@pytest.fixture(scope="session")
def shoulder_radiographs() -> dict[str, bytes]:
    """JPEG files by name; the name begins with the manufacturer."""
    if not FOLDER.is_dir():
        pytest.skip(f"the real radiographs are not there: {FOLDER}")
    with (FOLDER / "labels.csv").open(newline="") as file:
        names = sorted(row["file"] for row in csv.DictReader(file))
    return {name: (FOLDER / "images" / name).read_bytes() for name in names}


def tar_of(members: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar (`w`) or tar.gz (`w:gz`) of the members, in their order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    """A zip of the members, deflated."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()
