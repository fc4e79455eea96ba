r"""Sets a registry's records against what the radiographs show, and lists those to look at again.

    python -m jobs.audit --predictions predictions/ --registry records.csv --report audit/ \
        --columns record=CaseNo,study=StudyUID,manufacturer=Maker,product=Brand,hospital=Site \
        --key-file pseudonyms.key
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.audit --predictions s3://registry/out --report /shared/audit \
        --registry s3://registry/records.parquet --model s3://models/hips

The registry's table states which image is meant (instance, study, accession, or patient with side
and joint) and what was implanted (implant, manufacturer, product). Columns are found by such names,
or named by --columns. With a key file its identifiers become the pseudonyms that classify wrote;
pseudonyms are taken as they are. --model is expected for thresholds, synonyms and MR-safety notes
of a package that does not ship with this software.

Writes to DIR: worklist.parquet and .csv (contradictions, likeliest error first), verdicts.parquet
(every record), images.parquet (their radiographs), mr_safety.parquet and .csv, excluded.csv,
same_joint.csv (records of a joint that another names likewise: it counts once in the rate),
unmatched.csv (fill in its column `means`, `y` for its proposal, and give it back by --synonyms),
summary.json and audit.html. The files hold the registry's numbers and identifiers as in the
predictions; the page and the summary hold none.
Exit codes: 0 done; 2 the call is wrong, nothing was written; 3 done, but records had to be left
out for a fault of the file, no image spoke for or against any record, or a whole group of records
lost its images, of which the last line names the likeliest cause.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from implant_model import storage
from implant_model.storage.local_files import write_whole
from jobs.auditing import files, last_audit
from jobs.auditing.assemble import Audited, Reading, assemble, draw_sample, worklist_order
from jobs.auditing.audit_options import AuditOptions, parse_audit
from jobs.auditing.audit_page import render_audit
from jobs.auditing.evidence import combine, lapse
from jobs.auditing.files import verdict_table
from jobs.auditing.findings import Findings, describe_source, to_json
from jobs.auditing.images import columns_of, holds_pseudonyms, read_images
from jobs.auditing.joining import distinct_keys, exclude_several, is_seen, join, pair
from jobs.auditing.output import Output, open_output
from jobs.auditing.pictures import draw_pictures
from jobs.auditing.rate import estimate_rate, first_of_joint
from jobs.auditing.registry.causes import explain, find_cause
from jobs.auditing.registry.claims import check_meanings, counted_by, list_unmatched, match
from jobs.auditing.registry.components import set_aside
from jobs.auditing.registry.identifiers import Known, undo
from jobs.auditing.registry.names import Names
from jobs.auditing.registry.records import make_records
from jobs.auditing.registry.registry_file import RegistryFile, read_file
from jobs.auditing.registry.synonyms import Meanings, read_synonyms
from jobs.auditing.safety import safety_notes
from jobs.auditing.verdicts import Verdict, is_known, judge
from jobs.deciding.decisions import DECISIONS, DecisionTable
from jobs.deciding.sample import describe, read_sample, sample_table
from jobs.deciding.standing import judged
from jobs.deciding.verified_rate import VerifiedRate, estimate
from jobs.entry.command import DISCLAIMER, INCOMPLETE, OK, run_command, shown
from jobs.entry.ticker import waiting


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    options = parse_audit(arguments, __doc__)
    print(f"Audit of {shown(options.registry)}", flush=True)
    previous = read_previous(options)
    meanings = read_synonyms(options.synonyms)
    with waiting("The registry's file is read"):
        file = read_file(options.registry, options.columns, options.key, options.encoding)
    with waiting("Predictions and model are opened"):
        output = open_output(options.predictions, options.model)
    with waiting("Records and images are joined and judged"):
        audited = audit(file, output, options, meanings)
    with waiting("Page and tables are made"):
        return report(options, file, output, audited, previous)


def report(
    options: AuditOptions,
    file: RegistryFile,
    output: Output,
    audited: Audited,
    previous: Mapping[str, Any] | None,
) -> int:
    """Sample, rate, page and tables of what was audited; return the exit code."""
    pictures = draw_pictures(audited, output, options.pictures, options.images)
    source = describe_source(options.registry, file, output)
    if options.previous is None:
        previous = last_audit.before(previous, source.data)
    table = verdict_table(audited)
    drawn, sample = sample_of(options, audited, table, source.data)
    verified = verify(options.report, sample)
    found = assemble(source, audited, previous, pictures, drawn, verified)
    write(options.report, audited, found, table, sample if drawn else None)
    summarise(found, options.report)
    is_whole = not found.num_missing and found.rate.count and found.cause is None
    return OK if is_whole else INCOMPLETE


def read_previous(options: AuditOptions) -> Mapping[str, Any] | None:
    """Return the summary of the audit before: the one that was named, or the folder's own."""
    uri = options.previous or storage.normalise(str(options.report / files.SUMMARY))
    return last_audit.read_previous(uri, is_asked=options.previous is not None)


def audit(file: RegistryFile, output: Output, options: AuditOptions, meanings: Meanings) -> Audited:
    """Record and images joined, combined, judged."""
    model = output.model
    names, words = model.catalogue.names, Names(model.catalogue, meanings)
    check_meanings(words)
    are_pseudonyms = holds_pseudonyms(output.dataset, model.id, file.key)
    if are_pseudonyms and options.protector is not None and options.protector.key_id is not None:
        output.check_key(options.protector.key_id)
    known = Known(output.dataset, model.id, file.key, are_pseudonyms, options.protector)
    undone = undo(file, known)
    records = make_records(undone.file, options.protector, are_pseudonyms, meanings, words.joints)
    claims = match(records, words)
    records = set_aside(records, claims)
    keys = distinct_keys(records)
    batches = output.batches(columns_of(file.key))
    images = read_images(batches, file.key, keys, {name: k for k, name in enumerate(names)})
    pairs = pair(records, images, keys, file.key)
    records = exclude_several(records, pairs, claims.claim_M)
    cause = find_cause(records, pairs.miss_M, undone.file)
    joined = join(records, images, pairs, is_known(claims))
    evidence = combine(images, joined, len(records), model.shares_K, lapse(model.num_measured))
    seen_P = is_seen(images, joined.image_P)
    verdicts = judge(records, claims, joined, evidence, seen_P, model.quantiles_K, model.shares_K)
    first_M = first_of_joint(joined, len(records))
    confusion = estimate_rate(images, joined, evidence, claims, model, first_M)
    safety = safety_notes(model.catalogue, claims, verdicts)
    order = worklist_order(verdicts, confusion)
    reading = Reading(
        list_unmatched(records, claims, words),
        (*file.notes, *undone.notes, *records.notes),
        explain(cause, known),
        meanings,
    )
    counted = counted_by(records, words)
    judged = (joined, pairs.miss_M, verdicts, confusion, safety, first_M, order)
    return Audited(names, records, counted, claims, reading, images, *judged)


def sample_of(
    options: AuditOptions, audited: Audited, table: pa.Table, data: str
) -> tuple[Mapping[str, Any] | None, pa.Table | None]:
    """Return the sample that is asked for and its rows; without one, the folder's own rows."""
    if not options.sample:
        return None, read_sample(options.report, data)
    at, drawn = draw_sample(audited, options.sample, data)
    return describe(drawn, options.sample), sample_table(table, at.tolist(), drawn, data)


def verify(folder: Path, sample: pa.Table | None) -> VerifiedRate | None:
    """Return the rate of errors by what people found in the sample, where they have looked."""
    if sample is None or not (folder / DECISIONS).is_dir():
        return None
    return estimate(sample, judged(sample.to_pylist(), DecisionTable(folder).all()))


def write(
    folder: Path, audited: Audited, found: Findings, table: pa.Table, sample: pa.Table | None
) -> None:
    """Write tables, page and, when all else is there, the summary."""
    page, summary = render_audit(found).encode(), to_json(found)
    files.write_tables(folder, audited, table, sample)
    write_whole(folder / files.PAGE, page)
    write_whole(folder / files.SUMMARY, summary)


def summarise(found: Findings, folder: Path) -> None:
    """Print what was audited, what was found, and what is not in it."""
    print(f"{found.source.model}: {found.num_records:,} records, {found.num_images:,} images")
    for verdict, count in found.verdicts.items():
        if count:
            print(f"  {verdict.name.replace('_', ' ').lower():<20} {count:>12,}")
    if found.rate.count:
        print(f"Rate of errors of the registry: {describe_rate(found)}")
    if found.verified is not None and found.verified.verified:
        print(
            f"By {found.verified.verified:,} verified records: {describe_verified(found.verified)}"
        )
    if found.sample is not None:
        print(f"Sample: {found.sample['drawn']:,} records, to be read by jobs.review.")
    if found.rate.count:
        print(
            f"Worklist: {found.verdicts[Verdict.CONTRADICTS]:,} records, {found.likely_wrong:,} of "
            "them more likely wrong than right."
        )
    for line in files.describe_left_out(found):
        print(line)
    print(f"Report: {folder / files.PAGE}\n{DISCLAIMER}")
    if found.cause or not found.rate.count:
        print(found.cause or files.describe_nothing(found))


def describe_verified(verified: VerifiedRate) -> str:
    """Return the rate that people found, or why it is not known."""
    rate = str(verified.best)
    if math.isnan(verified.best.value):
        rate = "not known until each stratum of the sample has one."
    return f"By {verified.verified:,} verified records: {rate}"


def describe_rate(found: Findings) -> str:
    """Return the rate of errors with its interval, or why it is not known."""
    if found.why_no_rate:
        return f"not known. {found.why_no_rate}"
    value, low, high = (100 * part for part in (found.rate.value, found.rate.low, found.rate.high))
    count = found.rate.count
    return f"{value:.2f} % (95 % interval {low:.2f} to {high:.2f} %), from {count:,} records."


if __name__ == "__main__":
    run_command("audit", lambda: main(sys.argv[1:]))
