r"""Writes a page about an output of classify: what became of its images, and what to mend.

    python -m jobs.report predictions/ --report report/
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.report s3://registry/out --report /shared/report --model s3://models/hips

Writes DIR/report.html: outcomes, reasons of rejection with their remedies, the archives that were
not read whole or had the most rejected members, implants by maker and product, certainty, novelty,
and drift against the last weeks. It holds counts and names of archives, no picture, no identifier
out of an image. --model is expected where an output holds the predictions of several models.
Exit codes: 0 done; 2 the call is wrong; 3 a store does not answer.
"""

import sys
from collections.abc import Sequence

from implant_model import storage
from jobs.entry.command import DISCLAIMER, OK, Parser, run_command
from jobs.entry.folder import checked_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("report", __doc__)
    add = parser.add_argument
    add("output", metavar="OUTPUT", help="the --output of classify")
    add("--report", required=True, metavar="DIR", help="where to write")
    add("--model", metavar="URI", help="the package, or its name@hash; default: the only one")
    call = parser.parse_args(arguments)
    from jobs.pages.run_page import write_page  # half a second, which --help does without

    page = write_page(storage.normalise(call.output), call.model, checked_folder(call.report))
    print(f"Report: {page}\n{DISCLAIMER}")
    return OK


if __name__ == "__main__":
    run_command("report", lambda: main(sys.argv[1:]))
