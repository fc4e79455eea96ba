"""Makes the labelled phantom archives that `models/phantom` is trained on, in four kinds of file.

    python -m benchmarks.phantom_set FOLDER --images 3000 --seed 1

Members are DICOM (several transfer syntaxes), PNG of 8 and 16 bits and JPEG, two of each made-up
patient, with `labels.csv` beside the archives. Phantoms are no evidence about patients.
"""

import argparse
from pathlib import Path

from implant_model.phantom_files import Sample, sample_archives


def main() -> None:
    """Writes the archives and says how many pictures they hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--height-px", type=int, default=512)
    options = parser.parse_args()
    sample = Sample(images_per_patient=2, height_px=options.height_px)
    rows = sample_archives(options.folder, options.images, options.seed, sample)
    print(f"{len(rows)} phantoms in {options.folder}")


if __name__ == "__main__":
    main()
