"""How far the networks' picture of a framed film is from a full decode's, and what it changes.

    python -m benchmarks.films.framed

Phantoms of a detector's size are set in frames of 1 to 200 pixels, black or white, on some sides or
all, as collimators and scanners leave them, and written as JPEG and as JPEG 2000. The job decodes
these at a reduced size; beside it stands what a decode in full gives, and what models/phantom
answers to either. The result goes to benchmarks/films/framed.md. Exit code: 0 done.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import JPEG2000Lossless

from benchmarks.machine import machine
from implant_model.classifier import Classifier
from implant_model.decode.prepare import decode, picture_of
from implant_model.decode.preprocess import Preprocessing, preprocess
from implant_model.limits import Limits
from implant_model.package.catalogue import ORTHONET
from implant_model.package.load import load_package
from implant_model.phantoms.render import render
from tests.support.dicom_edits import dataset, to_bytes
from tests.support.pictures import encoded

ROOT: Final = Path(__file__).parents[2]
RESULT: Final = ROOT / "benchmarks" / "films" / "framed.md"
HEIGHT_PX: Final = (1700, 2600)
WIDEST_PX: Final = 200
LEVELS: Final = (0, 3, 255)
"""Greys of a frame."""
ELSEWHERE: Final = 2.0
"""Mean difference in grey levels above which a picture was cut elsewhere: noise makes 0.3."""
CARRIERS: Final = ("JPEG", "JPEG 2000")
Grey = NDArray[np.uint8]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, encode, decode twice, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=220)
    films = parser.parse_args(arguments).films
    package = load_package(str(ROOT / "models" / "phantom"))
    classifier, spec = Classifier(package), package.preprocessing
    rows = []
    for carrier in CARRIERS:
        files = [written(framed(number), carrier) for number in range(films)]
        found_NSS = np.stack([reduced(data, spec) for data in files])
        whole_NSS = np.stack([in_full(data, spec) for data in files])
        apart_N = np.abs(found_NSS.astype(int) - whole_NSS).mean(axis=(1, 2))
        answers = [classifier.classify(images) for images in (found_NSS, whole_NSS)]
        labels = [answer.probabilities_NC.argmax(axis=1) for answer in answers]
        rows.append(
            f"| {carrier} | {np.median(apart_N):.2f} | {np.max(apart_N):.1f} |"
            f" {int((apart_N > ELSEWHERE).sum())} | {int((labels[0] != labels[1]).sum())} |"
            f" {sum(a != b for a, b in zip(*(a.outcomes for a in answers), strict=True))} |"
        )
    RESULT.write_text(report(rows, films, package.id), encoding="utf-8")
    print("\n".join(rows))
    return 0


def framed(number: int) -> Grey:
    """Return a phantom in a frame, 8 bits."""
    rng = np.random.default_rng(number)
    implant = ORTHONET.implants[number % len(ORTHONET)]
    phantom = render(implant, np.random.default_rng(number), int(rng.integers(*HEIGHT_PX)))
    top, bottom, left, right = rng.integers(1, WIDEST_PX, 4) * (rng.random(4) < 0.6)
    grey_HW = (phantom.pixels_HW >> 4).astype(np.uint8)
    sides = ((top or 61, bottom), (left, right))
    return np.pad(grey_HW, sides, constant_values=LEVELS[rng.integers(len(LEVELS))])


def written(grey_HW: Grey, carrier: str) -> bytes:
    """Return the file of a picture."""
    if carrier == "JPEG":
        return encoded(grey_HW, "JPEG", quality=90)
    stream = encoded(grey_HW, "JPEG2000", no_jp2=True)
    return to_bytes(dataset(grey_HW), JPEG2000Lossless, stream)


def reduced(data: bytes, spec: Preprocessing) -> Grey:
    """Return the networks' picture as the job makes it."""
    image = picture_of(data, spec, Limits()).image
    if image is None:
        raise ValueError("A framed phantom has no picture.")
    return image


def in_full(data: bytes, spec: Preprocessing) -> Grey:
    """Return the networks' picture of a decode in full."""
    pixels_HW = decode(data, Limits()).pixels_HW
    if pixels_HW is None:
        raise ValueError("A framed phantom is not decoded.")
    return preprocess(pixels_HW, spec)


def report(rows: Sequence[str], films: int, model: str) -> str:
    """Return the page."""
    return "\n".join(
        [
            "# Framed films",
            "",
            f"`python -m benchmarks.films.framed`, {datetime.now(UTC):%Y-%m-%d}: {films} phantoms"
            f" in frames, decoded as the job does and in full, model `{model}`. Grey levels of 255;"
            f" a picture that is {ELSEWHERE:g} levels off on average was cut elsewhere.",
            "",
            "| file | mean difference, median | greatest mean difference | cut elsewhere |"
            " other label | other outcome |",
            "|---|---:|---:|---:|---:|---:|",
            *rows,
            "",
            f"{machine()}",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
