r"""Opens the reviewer's workbench: look at an audit's cases in a local browser, and decide.

    python -m jobs.review --audit audit/ --reviewer "A. Reader"
    python -m jobs.review --audit audit/ --archives archives/ s3://pacs/2026/ --model models/hips
    python -m jobs.review --audit audit/ --merge /media/stick/decisions.parquet
    python -m jobs.review --model models/hips

Prints an address of this machine alone, with a token; open it in a browser on this machine, or
through `ssh -L PORT:127.0.0.1:PORT`. Shows the radiographs of each record in their own depth, read
out of their archives when they are looked at and never written to disk. Decisions are appended to
the Delta table DIR/decisions, one commit each: several readers, each with a workbench of their own,
may work on one audit at once. Without opening the workbench, --merge takes decisions from another
computer, --export writes them, and --labels and --synonyms what was settled. With --model alone
radiographs may be dropped on a page, which shows what jobs.classify would say; nothing is stored.
Exit codes: 0 ended by Ctrl-C, merged or written; 2 the call is wrong; 3 a store does not answer.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from implant_model.errors import UsageError
from jobs.entry.command import Parser, run_command, shown
from jobs.entry.ticker import waiting


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    call = parse(arguments)
    print(f"Opens {shown(call.audit or call.model)}", flush=True)
    with waiting("The workbench is made ready"):
        from jobs.reviewing import serve  # a second, which --help does without
    if not call.audit:
        return serve.try_model(call)
    others = (call.merge, call.export, call.labels, call.synonyms)
    return serve.exchange(call) if any(others) else serve.serve(call)


def parse(arguments: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser("review", __doc__)
    add = parser.add_argument
    add("--audit", metavar="DIR", help="the --report of jobs.audit")
    add("--predictions", metavar="OUTPUT", help=_PREDICTIONS)
    add("--archives", nargs="+", default=[], metavar="URI", help=_ARCHIVES)
    add("--model", metavar="URI", help=_MODEL)
    add("--reviewer", metavar="NAME", help="who decides; default: the name of the login")
    add("--port", type=int, default=0, metavar="N", help="of 127.0.0.1; default: a free one")
    add("--merge", nargs="+", default=[], metavar="FILE", help=_MERGE)
    add("--export", metavar="FILE", help="write the decisions, .csv or .parquet, and end")
    add("--labels", metavar="FILE", help=_LABELS)
    add("--synonyms", metavar="FILE", help=_SYNONYMS)
    call = parser.parse_args(arguments)
    rest = (call.predictions, call.archives, call.merge, call.export, call.labels, call.synonyms)
    if not call.audit and (not call.model or any(rest)):
        raise UsageError("Name an --audit, or a --model alone to try it on radiographs.")
    if not 0 <= call.port < 65536:
        raise UsageError(f"--port is {call.port}; 1 to 65535 are accepted, or 0 for a free one.")
    return call


_PREDICTIONS = "the --output of classify, where it has moved; default: as it was audited"
_ARCHIVES = "where archives are now, and loose radiographs; default: as they were classified"
_MODEL = "the package, for saliency and thresholds; default: the one that ships with this software"
_MERGE = "add decisions of another computer: their exported .parquet, or an audit's folder"

_LABELS = "write what was settled as labels.csv, for jobs.train and jobs.evaluate, and end"
_SYNONYMS = "write unmatched.csv with what readers say that texts mean, for jobs.audit, and end"


if __name__ == "__main__":
    run_command("review", lambda: main(sys.argv[1:]))
