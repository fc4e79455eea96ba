"""The command line of a training, with all that can be checked before torch and Ray are loaded."""

from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path

from implant_model.errors import UsageError
from jobs.entry.folder import checked_folder, local_folder
from jobs.fitting.begun import check_begun
from training.config import TrainConfig, load_config
from training.data.gather import check_roots
from training.data.labels import Labels, read_table
from training.first_weights import check_first_weights
from training.fit.workers import Workers, read_workers
from training.masks.mask_files import mask_files
from training.masks.table_masks import table_masks


@dataclass(frozen=True)
class Call:
    """The command line, checked.

    Attributes:
        images: URIs as they were given.
        labels: Rows of the labels file; None where folders are the classes.
        output: Folder of the package.
        config: All settings.
        workers: Processes that fit.
        resume: Whether to go on with the training in `work`.
    """

    images: tuple[str, ...]
    labels: Labels | None = field(repr=False)
    output: Path
    config: TrainConfig
    workers: Workers
    resume: bool

    @property
    def work(self) -> Path:
        """Return what a resumed training needs."""
        return self.output.with_name(f"{self.output.name}.work")


def make_call(options: Namespace, config: TrainConfig | None = None) -> Call:
    """Check the command line, and read the settings and the labels.

    Args:
        options: Of `jobs.train`.
        config: Instead of the settings of `options.config`.

    Raises:
        UsageError: The call, its settings, its labels or its folders are not fit for a training.
    """
    config = load_config(options.config) if config is None else config
    workers = read_workers(options.workers)
    if workers.most > config.fit.batch_size:
        raise UsageError(
            f"--workers is {workers}; at most fit.batch_size ({config.fit.batch_size}) are "
            "accepted, since every worker takes its share of each batch."
        )
    output = local_folder(options.output, "--output")
    call = Call(tuple(options.images), None, output, config, workers, options.resume)
    check_folders(call)
    check_first_weights(config.network)
    if config.needs_masks and config.segmenter.masks:
        mask_files(Path(config.segmenter.masks))
    labels = _read_labels(options.labels, config)
    if config.needs_masks:
        table_masks(labels, config.segmenter.masks, config.pixels)
    check_roots(call.images)
    return Call(call.images, labels, output, config, call.workers, call.resume)


def check_folders(call: Call) -> None:
    """Refuse to write over a package or a training that was begun, or to go on with none."""
    if call.output.exists() and (not call.output.is_dir() or any(call.output.iterdir())):
        raise UsageError(f"--output {call.output} is there already; choose another folder.")
    checked_folder(str(call.work), "--output")
    check_begun(call.work, call.config, call.workers.to_json(), resume=call.resume)


def _read_labels(uri: str | None, config: TrainConfig) -> Labels | None:
    if uri is None:
        return None
    labels = read_table(uri, "--labels")
    if len(labels.names) < 2:
        raise UsageError(f"--labels {uri} has one label only; two classes are needed.")
    config.catalogue(labels.names)
    return labels
