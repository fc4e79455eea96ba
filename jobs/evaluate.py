r"""Measures how well a packaged model does on labelled radiographs.

    python -m jobs.evaluate --model models/phantom --images archives/ --labels labels.csv \
        --report evaluation/
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.evaluate --model s3://models/hips --images s3://registry/held-out \
        --labels s3://registry/held-out.csv --report /shared/evaluation --against models/old

Writes DIR/evaluation.json, DIR/evaluation.html (the same figures for people, in one file) and
DIR/excluded.csv (what could not be used, and why; it holds members' names, the others do not).
--labels is a file as for jobs.train; without it, each image's folder is its label. Labels that the
model's catalogue lacks measure how it meets unknown implants. --against compares with another
package, or with a reader's answers in a table of archive, member and label.
Names the images on CPU or --device cuda. Prepared images are on disk, in TMPDIR; with --cache,
which all nodes must reach, they are kept, shared with jobs.train, and read and named by Ray where
they are many.
Exit codes: 0 done; 2 the call is wrong; 3 done, without labelled images that could not be read.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from implant_model.errors import UsageError
from jobs.entry.command import Parser, run_command
from jobs.entry.ticker import waiting


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    options = parse(arguments)
    from jobs.evaluating.evaluation_call import make_call  # half a second, --help does without

    call = make_call(options)
    with waiting("Loading torch"):
        from jobs.evaluating.evaluation_run import evaluate  # seconds, which mistakes do without

    return evaluate(call)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser("evaluate", __doc__)
    parser.add_argument("--model", required=True, metavar="URI", help="a model package")
    parser.add_argument("--images", nargs="+", required=True, metavar="URI", help=_IMAGES)
    parser.add_argument("--labels", metavar="FILE", help=_LABELS)
    parser.add_argument("--report", required=True, metavar="DIR", help="where to write")
    parser.add_argument("--data", metavar="NAME", help="what to call the images in the report")
    parser.add_argument("--against", metavar="URI", help="another package, or a reader's table")
    parser.add_argument("--pictures", action="store_true", help="show the worst mistakes' images")
    parser.add_argument(
        "--robustness",
        type=int,
        default=500,
        metavar="N",
        help=_ROBUSTNESS,
    )
    parser.add_argument("--cache", metavar="URI", help=_CACHE)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    call = parser.parse_args(arguments)
    call.images = tuple(call.images)
    if call.robustness < 0:
        raise UsageError(f"--robustness is {call.robustness}; 0 or more images are accepted.")
    return call


_LABELS = "table of archive, member, label and patient, or of file and label"
_ROBUSTNESS = "measure on so many images also as poor scans would show them; default 500"
_CACHE = "folder or s3:// prefix that keeps the prepared images; default: not kept"
_IMAGES = "archives, radiographs, folders or s3:// prefixes"


if __name__ == "__main__":
    run_command("evaluate", lambda: main(sys.argv[1:]))
