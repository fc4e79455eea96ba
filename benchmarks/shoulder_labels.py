"""Writes the labels file of the shoulder radiographs, which lie loose in a folder.

    python -m benchmarks.shoulder_labels ../shared/data/shoulder/labels.csv /tmp/shoulder.csv

The set is "Shoulder Implant X-Ray Manufacturer Classification" (UCI Machine Learning Repository,
CC BY 4.0); it names no patients.
"""

import argparse
import csv
from pathlib import Path


def main() -> None:
    """Turn the columns file, manufacturer into archive, member, label."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    with options.source.open(newline="") as source, options.target.open("w", newline="") as target:
        rows = [(row["file"], "", row["manufacturer"]) for row in csv.DictReader(source)]
        writer = csv.writer(target)
        writer.writerow(("archive", "member", "label"))
        writer.writerows(rows)
    print(f"{len(rows)} labels in {options.target}")


if __name__ == "__main__":
    main()
