r"""Brings a network that was trained elsewhere into a model package.

    python -m jobs.import_weights model.pth --architecture densenet121 --images archives/ \
        --labels labels.csv --output models/mine [--config import.toml] [--resume]
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.import_weights /shared/model.safetensors --architecture resnet50 \
        --images s3://bucket/archives --labels s3://bucket/labels.csv --output /shared/models/mine

The file is safetensors, what torch.save made of tensors alone, or a DenseNet of Keras as .h5; its
network one of torchvision's, by torchvision's names of its layers. What each tensor becomes is
printed. Nothing is fitted: part of the labelled images sets temperature, candidates and novelty,
and another part measures (`split`), as in a training. They should not be those that the network was
trained on. Of --config, `network` needs no more than mean and std of the grey that it was trained
with, and `classes`, the labels in the order of its outputs, where that is not the alphabet's.
Exit codes: 0 done; 2 the call is wrong or the file cannot be used; 3 it broke off, --resume goes
on; or it is done, without labelled images that could not be read.
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
    from training.config import as_imported, load_config

    config = as_imported(load_config(options.config), options.file, options.architecture)
    call = make_call(options, config)
    with waiting("Loading torch and Ray"):
        from jobs.fitting.training_run import train  # seconds, which mistakes do without
        from training.fit.fitting import specs_of
        from training.weight_files import describe, map_file

    for line in describe(map_file(options.file, specs_of(config)[0]), config.network.architecture):
        print(line)
    return train(call, words, "jobs.import_weights")


def parse(arguments: Sequence[str]) -> Namespace:
    """Read the command line."""
    parser = Parser("import_weights", __doc__)
    add = parser.add_argument
    add("file", metavar="FILE", help="of weights, or a hub's folder with model.safetensors")
    add("--architecture", required=True, metavar="NAME", help="torchvision's name of the network")
    add("--images", nargs="+", required=True, metavar="URI", help=_IMAGES)
    add("--labels", metavar="FILE", help="table of labels; default: each image's folder")
    add("--output", required=True, metavar="DIR", help="the package; a folder that is not there")
    add("--config", metavar="FILE", help="settings of a training, TOML or JSON; default none")
    add("--resume", action="store_true", help="go on with what is in OUTPUT.work")
    options = parser.parse_args(arguments)
    return Namespace(**vars(options), workers="1")


_IMAGES = "archives, radiographs, folders or s3:// prefixes: to calibrate and to measure"


if __name__ == "__main__":
    run_command("import_weights", main, resume="the same command with --resume goes on")
