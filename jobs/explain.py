r"""Says what a model sees on a radiograph, and shows where it looks.

    python -m jobs.explain --model models/phantom radiograph.dcm
    python -m jobs.explain --model models/phantom archives/2026.tar 17 other.dcm --output why/
    python -m jobs.explain --model models/hips --table audit/worklist.parquet --images archives/ \
        --output why/
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.explain --model s3://models/hips s3://pacs/one.png --output explanation.png

Prints outcome, candidates with calibrated probabilities and novelty, and draws the radiograph as
the networks see it, the segmenter's cut-out (where the package has a segmenter) and a saliency
picture. Neither holds the file's name or anything of its header; what is burned into the pixels is
in the picture. IMAGE is DICOM, PNG or JPEG, a path or s3://; a member of an archive is named as the
tables name it, ARCHIVE MEMBER_INDEX. Several are drawn to a folder, 1.png, 2.png, ... by their
places in the call.
Exit codes: 0 done; 2 the call is wrong; 3 an image is rejected, and its reason is printed.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from implant_model.errors import UsageError
from jobs.entry.command import Parser, run_command
from jobs.entry.ticker import waiting


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    call = parse(arguments)
    from implant_model.package.load import load_package  # half a second, --help does without
    from jobs.explaining.targets import find_targets

    targets = find_targets(call.images, call.table, call.inputs, call.predictions)
    package = load_package(call.model, weights=False)
    with waiting("Loading torch"):
        from jobs.explaining.explanations import explain_all  # seconds, mistakes do without

    return explain_all(call, targets, package)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser("explain", __doc__)
    add = parser.add_argument
    add("images", nargs="*", metavar="IMAGE", help="a radiograph, or ARCHIVE MEMBER_INDEX")
    add("--model", required=True, metavar="URI", help="a model package")
    add("--output", metavar="PNG", help=_OUTPUT)
    add("--table", metavar="FILE", help=_TABLE)
    add("--images", nargs="+", default=[], dest="inputs", metavar="INPUT", help=_INPUTS)
    add("--predictions", metavar="OUTPUT", help=_PREDICTIONS)
    call = parser.parse_args(arguments)
    if bool(call.images) == bool(call.table):
        raise UsageError("Name either radiographs or a --table of them; see --help.")
    return call


_OUTPUT = "where to draw; of several a folder; default explanation.png, or explanations/"
_TABLE = "CSV or Parquet with archive and member_index, such as an audit's worklist"
_INPUTS = "of --table: the INPUTs of classify, which its archives lie below; default: none"
_PREDICTIONS = "of --table: the --output of classify, where radiographs lay loose"


if __name__ == "__main__":
    run_command("explain", lambda: main(sys.argv[1:]))
