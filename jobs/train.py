r"""Fits a network to labelled radiographs and writes a model package.

    python -m jobs.train --images archives/ --labels labels.csv --output models/mine \
        [--config train.toml] [--workers 2] [--resume]
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.train --images s3://bucket/archives --labels s3://bucket/labels.csv \
        --output /shared/models/mine --workers 8

--labels is CSV or Parquet with the columns archive, member, label and, where known, patient; of
radiographs that lie loose, file (the path below --images) and label. Without it, each image's
folder is its label.
What is odd about the set is printed first. That (set.txt), the prepared images, the list of what
was left out, the checkpoints and the losses of each epoch (*.jsonl, as it goes) are kept in
OUTPUT.work, from which --resume goes on; every worker must reach it.
Exit codes: 0 done; 2 the call or its set-up is wrong; 3 the training broke off, --resume goes on;
or it is done, without labelled images that could not be read.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from jobs.entry.command import Parser, run_command
from jobs.entry.ticker import waiting


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(words)
    from jobs.fitting.training_call import make_call  # half a second, which --help does without

    call = make_call(options)
    with waiting("Loading torch and Ray"):
        from jobs.fitting.training_run import train  # seconds, which mistakes do without

    return train(call, words)


def parse(arguments: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = Parser("train", __doc__)
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="URI", help=_IMAGES)
    add("--labels", metavar="FILE", help="table of labels; default: each image's folder")
    add("--output", required=True, metavar="DIR", help="the package; a folder that is not there")
    add(
        "--config",
        metavar="FILE",
        help="settings, TOML or JSON, see docs/training.md; default none",
    )
    add("--workers", default="1", metavar="N|MIN:MAX", help=_WORKERS)
    add("--resume", action="store_true", help="go on with the training in OUTPUT.work")
    return parser.parse_args(arguments)


_IMAGES = "archives, radiographs, folders or s3:// prefixes"
_WORKERS = (
    "processes that fit, each with a GPU or a CPU core; MIN:MAX: as many as the cluster has room "
    "for, more or fewer as nodes come and go; default 1"
)


if __name__ == "__main__":
    run_command("train", main, resume="the same command with --resume goes on")
