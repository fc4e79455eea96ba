"""Makes the labelled phantom archives that `models/phantom` is trained on, in four kinds of file.

    python -m benchmarks.phantom_set FOLDER --images 3000 --seed 1 [--masks FOLDER --size-px 192]

Members are DICOM (several transfer syntaxes), PNG of 8 and 16 bits and JPEG, three of each made-up
patient, with `labels.csv` beside the archives. --masks writes each phantom's true mask as a
training at --size-px reads it (`segmenter.masks`). Phantoms are no evidence about patients.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from implant_model.decode.preprocess import Preprocessing, picture_box, preprocess
from implant_model.phantoms.files import ManifestRow, Sample, draw_phantom, sample_archives


def main() -> None:
    """Write the archives and states how many pictures they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--height-px", type=int, default=512)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--size-px", type=int, default=192)
    options = parser.parse_args()
    sample = Sample(images_per_patient=3, height_px=options.height_px)
    rows = sample_archives(options.folder, options.images, options.seed, sample)
    print(f"{len(rows)} phantoms in {options.folder}")
    if options.masks:
        write_true_masks(options.masks, rows, options.seed, sample, options.size_px)
        print(f"{len(rows)} masks in {options.masks}")


def write_true_masks(
    folder: Path, rows: list[ManifestRow], seed: int, sample: Sample, size_px: int
) -> None:
    """Draw each phantom again and write its mask, cut and resized as its picture will be."""
    spec = Preprocessing(size_px=size_px, trim_borders=False, low_percent=0.0, high_percent=100.0)
    for number, row in enumerate(rows):
        phantom = draw_phantom(number, np.random.default_rng([seed, number]), sample)
        mask_HW = phantom.mask_HW[picture_box(phantom.pixels_HW)].astype(np.uint8) * 255
        file = folder / row["archive"] / f"{row['member']}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), preprocess(mask_HW, spec))


if __name__ == "__main__":
    main()
