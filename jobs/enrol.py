r"""Adds implants to a model package from a few radiographs of each; trains no network.

    python -m jobs.enrol --model models/mine --images archives/ --labels labels.csv \
        --output models/mine-enrolled [--config implants.toml] [--name mine-enrolled]

5 to 20 radiographs of each new implant do, best of as many patients. --labels is a file as for
jobs.train; without it, each image's folder is its label. A label that the package knows, by name or
synonym, marks a calibration image of that implant: with 9 or more of one, its candidates are
calibrated again, and without them they are kept or made wider. Which promise holds for which
implant is printed, and is in MODEL_CARD.md.
The networks stay as they are: each gets a row in its last layer for each new implant. All images
are held as embeddings. Exit codes: 0 done; 2 the call is wrong, nothing was written; 3 it is done,
without labelled images that could not be read.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from jobs.entry.command import Parser, run_command, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    call = parse(words)
    print(f"New implants in {shown(call.model)}", flush=True)
    from jobs.enrolling.few_images import enrol  # torch takes seconds

    return enrol(call, words)


def parse(arguments: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = Parser("enrol", __doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="URI", help="the package that gets new implants")
    add("--images", nargs="+", required=True, metavar="URI", help=_IMAGES)
    add("--labels", metavar="FILE", help="archive, member, label, patient")
    add("--output", required=True, metavar="DIR", help="the new package; not there yet")
    add("--config", metavar="FILE", help="tables implants.LABEL with joint, manufacturer, product")
    add("--name", help="of the new package; default: the old one's with -enrolled")
    return parser.parse_args(arguments)


_IMAGES = "archives, radiographs, folders or s3:// prefixes"


if __name__ == "__main__":
    run_command("enrol", main)
