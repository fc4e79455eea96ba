r"""Puts the small files of an output's tables into large ones, which are quicker to read.

    python -m jobs.compact predictions/
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.compact s3://registry/implants --vacuum-after 30

No row changes, and readers see the same before and after. It may run beside jobs.classify, and be
killed at any time. It needs no right to delete: what the small files held stays in the store,
unless --vacuum-after deletes what left the tables so many days ago, which does need that right;
older versions of the tables can then no longer be read.
With --nightly it may follow each run: most nights it finds too little to do, and does nothing.
Exit codes: 0 done; 2 the call is wrong; 3 a table could not be written.
"""

import sys
from collections.abc import Sequence

from implant_model import storage
from jobs.entry.command import OK, Parser, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("compact", __doc__)
    parser.add_argument("output", metavar="OUTPUT", help="the --output of classify")
    parser.add_argument("--vacuum-after", type=int, metavar="DAYS", help=_VACUUM)
    parser.add_argument("--nightly", action="store_true", help=_NIGHTLY)
    call = parser.parse_args(arguments)
    from jobs.tables.compaction import compact

    compacted = compact(storage.normalise(call.output), call.vacuum_after, nightly=call.nightly)
    for table in compacted:
        deleted = f", {table.deleted:,} files deleted" if call.vacuum_after is not None else ""
        print(f"{table.name}: {table.before:,} files before, {table.after:,} now{deleted}.")
    return OK


_NIGHTLY = "leave a table as it is while it has fewer than 64 small files; to run after classify"
_VACUUM = "delete files that left the tables so many days ago, 7 or more; default: delete nothing"


if __name__ == "__main__":
    run_command("compact", lambda: main(sys.argv[1:]))
