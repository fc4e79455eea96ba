"""Shows the main job at work on sample archives that it makes.

    python -m jobs.demo
    python -m jobs.demo --output demo-output

It writes archives of synthetic radiographs (phantoms) and of what else archives hold, runs
`jobs.classify` and `jobs.verify` on them as a user would, compares the predictions with what the
archives are known to hold, and writes a report. Then it makes a registry of the phantoms, 5 % of
its records wrong, and runs `jobs.audit` on it. A second run finds nothing to classify. Phantoms are
no evidence about patients. Exit codes: 0 everything went as it should; 2 the call is wrong; 3
something did not, and a line states what; 75 another run holds the output.
"""

import sys
from collections.abc import Sequence

from jobs.entry.command import Parser, run_command
from jobs.entry.folder import checked_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("demo", __doc__)
    parser.add_argument("--output", default="demo-output", metavar="DIR", help=_OUTPUT)
    folder = checked_folder(parser.parse_args(arguments).output, "--output")
    from jobs.samples.demonstration import run  # a second, which --help does without

    return run(folder)


_OUTPUT = "where to write; default demo-output"


if __name__ == "__main__":
    run_command("demo", lambda: main(sys.argv[1:]))
