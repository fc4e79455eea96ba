r"""Names the implant on every radiograph of the archives, into a Delta table of Parquet files.

On a laptop:

    python -m jobs.classify archives/ --output predictions/ --model models/phantom

On a cluster, where `s3://` URIs take endpoint, region and credentials from the AWS variables:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.classify s3://pacs/2026/ --output s3://registry/out --model models/phantom

What the output already holds for an archive version and model is not done again: the nightly
batch, a resumed run and a first run are the same command. Exit codes: 0 all done; 2 the call or its
set-up is wrong, nothing was written; 3 the run ended but something is missing, over
--max-rejected or past --max-drift; 75 another run holds the output.
"""

import os
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from implant_model import __version__, storage
from implant_model.decode.confine import available, require_whole
from implant_model.errors import StorageError, UsageError
from implant_model.package.conversion import converting
from implant_model.package.load import ModelPackage, load_package
from implant_model.storage.endpoint import KMS_KEY
from implant_model.storage.local_files import OWNER_ALONE
from jobs.entry.cluster import start_ray
from jobs.entry.command import OK, run_command
from jobs.pipeline.classify_options import ClassifyOptions, check_key, parse_classify
from jobs.pipeline.health import Health, take_health
from jobs.pipeline.plan import Plan, make_plan
from jobs.pipeline.prometheus import write_metrics
from jobs.pipeline.recipe import Recipe
from jobs.pipeline.run import settle
from jobs.pipeline.summary import describe_plan, exit_code, summarise
from jobs.tables.archive_rows import RunIdentity
from jobs.tables.lease import Lease
from jobs.tables.loose_names import LooseNames, OtherKeyError
from jobs.tables.publish import Tables
from jobs.tables.records import ArchiveResult
from jobs.tables.trail import RunFacts, Trail


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    options = parse_classify(arguments, __doc__)
    if options.sse_kms_key_id is not None:
        os.environ[KMS_KEY] = options.sse_kms_key_id
    package = load_package(options.model, weights=False)
    recipe = options.recipe(package)
    if recipe.is_private:
        os.umask(OWNER_ALONE)
    try:
        return classify_inputs(options, package, recipe)
    except OtherKeyError:
        print("Another run has named the loose radiographs since; once more.", flush=True)
        return classify_inputs(options, package, recipe)


def classify_inputs(options: ClassifyOptions, package: ModelPackage, recipe: Recipe) -> int:
    """Plan, classify what there is to do, summary; return the exit code."""
    began_at = datetime.now(UTC)
    tables = tables_of(options, package, recipe)
    plan, names = plan_run(options, tables)
    print(describe_plan(plan, recipe, package.manifest.decode_version), flush=True)
    for weakness in package.weaknesses:
        print(f"Warning: the model is weak. {weakness}", flush=True)
    check_sandbox(options.require_sandbox)
    if options.dry_run:
        return OK
    if not plan.todo:
        tables.write_checksums()  # what a run left that died at its very end
    code, health = OK, None
    for number, part in enumerate(plan.rounds()):
        if number:
            began_at, tables = datetime.now(UTC), tables_of(options, package, recipe)
        done = classify_round(part, options, package, recipe, tables, names, began_at)
        health, code = done[0], max(code, done[1])
    write_reports(options, tables, package.id, health, code)
    return code


def tables_of(options: ClassifyOptions, package: ModelPackage, recipe: Recipe) -> Tables:
    """Return the output's tables, to be written by a new run."""
    key_id, run = options.protector.key_id, uuid.uuid4().hex
    identity = RunIdentity(package.id, recipe.configuration_hash, __version__, run, key_id)
    return Tables(options.output, identity)


def classify_round(
    plan: Plan,
    options: ClassifyOptions,
    package: ModelPackage,
    recipe: Recipe,
    tables: Tables,
    names: LooseNames,
    began_at: datetime,
) -> tuple[Health | None, int]:
    """Classify what one round of a plan has to do, summary.

    Returns:
        What the round is beside earlier runs, and the exit code that follows from it.
    """
    identity = tables.identity
    trail = Trail(options.output, run_facts(options, identity, plan, names))
    results: list[ArchiveResult] = []
    try:
        if plan.todo:
            results = classify(plan, options, recipe, package, tables, trail, names)
        health = take_health(
            results, identity, options.output, options.max_rejected, options.max_drift, began_at
        )
        code = exit_code(plan, results, options.max_rejected, health)
        if plan.todo:
            trail.end(results, code)
    except BaseException as error:
        trail.break_off(error)
        raise
    print(summarise(plan, results, options.output, health), flush=True)
    return health, code


def plan_run(options: ClassifyOptions, tables: Tables) -> tuple[Plan, LooseNames]:
    """Read what the output holds, and list what there is to do.

    Raises:
        UsageError: The store does not answer or refuses, too: nothing has been written yet.
    """
    try:
        records, names = tables.records(), LooseNames(options.output, options.protector.policy)
        if warning := check_key(options, records.key_ids):
            print(f"Warning: {warning}", flush=True)
        plan = make_plan(
            options.inputs, records, options.retry, options.limit, options.redo_older, names,
            options.manifest,
        )  # fmt: skip
    except StorageError as error:
        raise UsageError(str(error)) from error
    return plan, names


def write_reports(
    options: ClassifyOptions, tables: Tables, model: str, health: Health | None, code: int
) -> None:
    """Write the page and the metrics, where they are asked for."""
    if options.report is not None and tables.exist():
        from jobs.pages.run_page import write_page

        print(f"Report: {write_page(options.output, model, options.report)}", flush=True)
    if options.metrics_file is not None:
        write_metrics(options.metrics_file, health, model, code)


def run_facts(
    options: ClassifyOptions, identity: RunIdentity, plan: Plan, names: LooseNames
) -> RunFacts:
    """Return what the audit trail records of this run."""
    return RunFacts(
        run=identity.run,
        model=identity.model,
        configuration_hash=identity.configuration_hash,
        software_version=identity.software_version,
        identifiers=str(options.protector.policy),
        key_id=identity.key_id,
        inputs=tuple(map(names.shown_input, options.inputs)),
        planned=len(plan.todo),
    )


def check_sandbox(required: bool) -> None:
    """Name what this machine's sandbox for the decoder lacks; each node checks its own.

    Raises:
        UsageError: It is required, and a part of it is missing.
    """
    confinement = available()
    if required:
        require_whole(confinement)
    elif not confinement.is_whole:
        print(f"Warning: the decoder's sandbox has {confinement.missing}.", flush=True)


def classify(
    plan: Plan,
    options: ClassifyOptions,
    recipe: Recipe,
    package: ModelPackage,
    tables: Tables,
    trail: Trail,
    names: LooseNames,
) -> list[ArchiveResult]:
    """Read, decode, classify and publish the planned archives.

    Returns:
        One result for each planned archive, as its tables have it.
    """
    storage.check_output(options.output)
    lease = Lease(options.output, trail.run)
    lease.check()
    # Ray takes seconds of CPU to import: a mistake in the call, a dry run, a night with nothing new
    # and one that finds the output busy do not need it. And nothing is written before it is there
    # and the weights are known to fit: exit code 2 says so.
    with converting(options.model, package) as converted:
        start_ray()
        from jobs.pipeline.stages import Model, choose_resources, run_stages

        storage.probe(options.output)
        model = Model(package, converted())
    with lease:
        resources = choose_resources(options.actors, options.gpus_per_actor, options.batch_size)
        names.keep_key()
        tables.create()
        trail.begin()
        run_all = partial(run_stages, plan.todo, recipe, model, resources)
        return settle(plan.todo, run_all(), tables, again=run_all)


if __name__ == "__main__":
    run_command("classify", lambda: main(sys.argv[1:]))
