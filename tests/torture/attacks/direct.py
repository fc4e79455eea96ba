"""The main job without Ray: its own plan, reading, publication and ledger, in one process.

For attacks that need hundreds of runs: a run takes a second. What Ray does between the stages is
left out, nothing else. Runs are children of a server that has the libraries loaded, so that one can
be killed as a job is killed.
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import torch

from implant_model import __version__, storage
from implant_model.classifier import Classifier
from implant_model.decode.decoded import Prepared
from implant_model.decode.prepare import decode
from implant_model.decode.preprocess import preprocess
from implant_model.errors import MemberError
from implant_model.limits import Limits
from implant_model.package.load import load_package
from implant_model.storage import s3
from implant_model.storage.endpoint import KMS_KEY
from jobs.classify import plan_run, run_facts
from jobs.entry.command import run_command
from jobs.pipeline.blocks import block_table, read_block
from jobs.pipeline.classify_options import parse_classify
from jobs.pipeline.filled_rows import fill_rows
from jobs.pipeline.publisher import PublishBlock
from jobs.pipeline.recipe import Recipe
from jobs.pipeline.run import settle
from jobs.pipeline.source import group_archives, read_group
from jobs.pipeline.summary import exit_code
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.lease import Lease
from jobs.tables.publish import Tables
from jobs.tables.receipts import ArchiveReceipt, Fault, load_receipts
from jobs.tables.trail import Trail

UNIT_MEMBERS: Final = 3
READ_TIMEOUT_S: Final = 10
"""Of the store's answers; 60 s in the product, which an attack that hangs would have to wait."""


def run(arguments: Sequence[str], *, lease: bool) -> None:
    """The job with its own exit code and errors; ends the process."""
    s3._READ_TIMEOUT_S = READ_TIMEOUT_S
    torch.set_num_threads(1)
    run_command("classify", lambda: classify(arguments, lease=lease))


def classify(arguments: Sequence[str], *, lease: bool = True) -> int:
    """What `jobs.classify.main` does, without Ray between the stages."""
    options = parse_classify(arguments, None)
    if options.sse_kms_key_id is not None:
        os.environ[KMS_KEY] = options.sse_kms_key_id
    package = load_package(options.model)
    recipe = replace(options.recipe(package), unit_members=UNIT_MEMBERS)
    run = uuid.uuid4().hex
    identity = RunIdentity(
        package.id, recipe.configuration_hash, __version__, run, options.protector.key_id
    )
    tables = Tables(options.output, identity)
    plan, names = plan_run(options, tables)
    trail = Trail(options.output, run_facts(options, identity, plan, names))
    if not plan.todo:
        tables.write_checksums()
        return exit_code(plan, [], options.max_rejected)
    storage.probe(options.output)
    classifier, todo = Classifier(package), tuple(plan.todo)

    def receipts() -> Iterator[ArchiveReceipt]:
        publish = PublishBlock(recipe.output, units_at_once=1)  # requests in the same order always
        for group in group_archives(todo, 2):
            for block in read_group(group, recipe, lambda data: prepare(data, recipe), ahead=0):
                table = _classified(block, recipe, classifier, package)
                for receipt in load_receipts(publish(table)["receipts"][0].as_py()):
                    assert not isinstance(receipt, Fault)
                    yield receipt

    def work() -> int:
        names.keep_key()
        tables.create()
        trail.begin()
        results = settle(todo, receipts(), tables)
        code = exit_code(plan, results, options.max_rejected)
        trail.end(results, code)
        return code

    if not lease:
        return work()
    with Lease(options.output, run):
        return work()


def prepare(data: bytes | memoryview, recipe: Recipe) -> Prepared:
    """Decodes in this process: to start another for each run would take most of its time."""
    decoded = decode(data, Limits(), 2 * recipe.preprocessing.size_px)
    if decoded.pixels_HW is None:
        return Prepared(decoded.header, None, decoded.reason)
    try:
        image = preprocess(decoded.pixels_HW, recipe.preprocessing)
    except MemberError as error:
        return Prepared(decoded.header, None, error.reason)
    return Prepared(decoded.header, image, None)


def _classified(block: pa.Table, recipe: Recipe, classifier: Any, package: Any) -> pa.Table:
    pieces, rows, images_NHW = read_block(block, recipe.preprocessing.size_px)
    if len(images_NHW):
        rows = fill_rows(rows, classifier.classify(images_NHW), package)
    return block_table(pieces, rows)
