"""Pixels of one file of each format, as they were when DECODE_VERSION was last raised."""

import base64

import numpy as np
import pytest

from implant_model.decode.version import DECODE_VERSION
from tests.decode import make_golden
from tests.decode.make_golden import SIZE_PX, files, pixels_of, read_golden

RAISE = (
    "Pixels changed: raise DECODE_VERSION in implant_model/decode/version.py, say there why, and "
    "run `python -m tests.decode.make_golden`."
)


def test_golden_pixels_are_those_of_this_version() -> None:
    assert read_golden()["decode_version"] == DECODE_VERSION, RAISE
    assert set(read_golden()["files"]) == {file.name for file in files()}


@pytest.mark.parametrize("name", [file.name for file in files()])
def test_pixels_are_golden(name: str) -> None:
    made = pixels_of((make_golden.GOLDEN / name).read_bytes())
    golden = dict(read_golden()["files"][name])
    pictures = [
        np.frombuffer(base64.b64decode(pixels.pop("picture")), np.uint8).astype(int)
        for pixels in (made, golden)
    ]
    assert made == golden, RAISE
    assert pictures[0].size == SIZE_PX * SIZE_PX
    # A resize may round otherwise on another processor, by one grey level.
    assert np.abs(pictures[0] - pictures[1]).max() <= 1, RAISE


def test_changed_pixels_are_not_recorded_under_the_same_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (make_golden.GOLDEN / "golden.json").read_bytes()
    monkeypatch.setattr(make_golden, "pixels_of", lambda data: {"sha256": str(len(data))})
    assert make_golden.main() == 3
    assert "Raise DECODE_VERSION first" in capsys.readouterr().out
    assert (make_golden.GOLDEN / "golden.json").read_bytes() == before
