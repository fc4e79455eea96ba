r"""Writes the predictions of each study as a DICOM structured report (TID 1500).

    python -m jobs.export_sr predictions/ --output reports/
    python -m jobs.export_sr s3://registry/out --output reports/ --archives s3://pacs/2026 \
        --model s3://models/hips

One Comprehensive SR for each study with DICOM radiographs: of each radiograph the outcome, the
candidates, probabilities and novelty, with the package's name and hash, and references to the
radiographs. Patient and study are copied from the radiographs' headers, which are read in their
archives again, if the predictions keep identifiers. If they hold pseudonyms, so do the reports: no
report names a patient whom the tables do not name. Predictions without identifiers are refused.
DIR/reports.csv lists every study, and why one has no report. A report that is there stays, and the
same predictions give the same report, so that the same command goes on. A report is preliminary and
unverified. DIR is for its owner alone.
Exit codes: 0 done; 2 the call is wrong, nothing was written; 3 a study is without a report, or a
store does not answer.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from jobs.entry.command import Parser, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    call = parse(arguments)
    from jobs.exporting.export_run import export  # seconds, which --help does without

    return export(call)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser("export_sr", __doc__)
    add = parser.add_argument
    add("predictions", metavar="OUTPUT", help="the --output of classify")
    add("--output", required=True, metavar="DIR", help="where to write; a folder of this machine")
    add("--archives", nargs="+", default=[], metavar="URI", help=_ARCHIVES)
    add("--model", metavar="URI", help=_MODEL)
    return parser.parse_args(arguments)


_ARCHIVES = "where archives are now, and loose radiographs; default: as they were classified"
_MODEL = "the package that made them; default: the one that ships with this software"


if __name__ == "__main__":
    run_command("export_sr", lambda: main(sys.argv[1:]))
