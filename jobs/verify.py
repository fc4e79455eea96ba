r"""Checks that every published row of an output is still whole and accounted for.

    python -m jobs.verify predictions/
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.verify s3://registry/implants

Each data file is read and compared with the hash, the size and the rows that the table `archives`
has of it; each archive's members with the sum of its units; and the files of the table
`predictions` with those of `archives`. Reads only. Exit codes: 0 all is whole; 2 the call is wrong;
3 something is not, and each finding is a line that names the file.
"""

import sys
from collections.abc import Sequence

from implant_model import storage
from jobs.entry.command import INCOMPLETE, OK, Parser, run_command, shown
from jobs.tables.verification import verify_output


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("verify", __doc__)
    parser.add_argument("output", metavar="OUTPUT", help="the --output of classify")
    output = storage.normalise(parser.parse_args(arguments).output)
    report = verify_output(output)
    for finding in report.findings:
        print(shown(finding))
    print(
        f"{report.archives:,} archives, {report.files:,} files, {report.rows:,} rows: "
        f"{'all whole' if not report.findings else f'{len(report.findings):,} findings'}."
    )
    return INCOMPLETE if report.findings else OK


if __name__ == "__main__":
    run_command("verify", lambda: main(sys.argv[1:]))
