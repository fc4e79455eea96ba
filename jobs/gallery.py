r"""Adds reference radiographs to a model package, which people compare others with.

    python -m jobs.gallery --model models/mine --images archives/ --labels labels.csv \
        --source "Registry of X, 2015 to 2019" --licence "for the registry's own use"

Writes MODEL/references.parquet: of each implant some radiographs as the networks see them (grey, 8
bits, at most 256 pixels a side), with their embeddings, source and licence, and no name, header or
patient. The workbench shows the nearest of each candidate. They change no answer, and the package
keeps its name@hash; the file may be taken away again.
A package travels, and pictures of patients go with it: what is burned into their pixels, too. Look
at them first, and add none that may not be seen wherever the package is used.
--labels is a file as for jobs.train; without it, each image's folder is its label. All images are
held in memory. Exit codes: 0 done; 2 the call is wrong, nothing was written.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from implant_model.errors import UsageError
from jobs.entry.command import Parser, run_command, shown
from training.settings import MAX_TEXT


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    call = parse(arguments)
    print(f"References of {shown(call.model)}", flush=True)
    from jobs.reviewing.exemplars import add_references  # torch takes seconds

    return add_references(call)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser("gallery", __doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="a model package on this machine")
    add("--images", nargs="+", required=True, metavar="URI", help=_IMAGES)
    add("--labels", metavar="FILE", help="archive, member, label, patient")
    add("--per-class", type=int, default=5, metavar="N", help="of each implant; default 5")
    add("--source", required=True, metavar="TEXT", help="where they come from, without identifiers")
    add("--licence", required=True, metavar="TEXT", help="under which they may be shown")
    call = parser.parse_args(arguments)
    if call.per_class < 1:
        raise UsageError(f"--per-class is {call.per_class}; 1 or more are accepted.")
    for option in ("source", "licence"):
        text = getattr(call, option).strip()
        if not 0 < len(text) <= MAX_TEXT:
            raise UsageError(f"--{option} takes 1 to {MAX_TEXT:,} characters.")
    return call


_IMAGES = "archives, radiographs, folders or s3:// prefixes"


if __name__ == "__main__":
    run_command("gallery", lambda: main(sys.argv[1:]))
