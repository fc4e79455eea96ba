"""What an audit leaves in its folder: Parquet, CSV that is safe in a spreadsheet, JSON, a page.

And the lines that it prints on what is in them alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from implant_model import storage
from implant_model.storage.local_files import whole_file
from implant_model.storage.spreadsheets import write_csv
from jobs.auditing.assemble import Audited
from jobs.auditing.findings import Findings
from jobs.auditing.joining import Use
from jobs.auditing.registry.causes import Miss
from jobs.auditing.registry.records import EXCLUSIONS, Exclusion, Records
from jobs.auditing.registry.sites import places
from jobs.auditing.safety import NOT_KNOWN, Gap
from jobs.auditing.verdicts import VERDICTS as MEANINGS
from jobs.auditing.verdicts import Doubt, Verdict
from jobs.deciding.sample import SAMPLE

VERDICTS: Final = "verdicts.parquet"
WORKLIST: Final = "worklist"
SAFETY: Final = "mr_safety"
EXCLUDED: Final = "excluded.csv"
SAME_JOINT: Final = "same_joint.csv"
UNMATCHED: Final = "unmatched.csv"
IMAGES: Final = "images.parquet"
SUMMARY: Final = "summary.json"
PAGE: Final = "audit.html"
_SAFETY_COLUMNS: Final = ("study", "row", "record", "claimed", "seen")
_UNMATCHED_ROW: Final = pa.schema(
    [
        ("field", pa.string()),
        ("text", pa.string()),
        ("records", pa.int64()),
        ("why", pa.string()),
        ("proposal", pa.string()),
        ("score", pa.float64()),
        ("means", pa.string()),
    ]
)


def verdict_table(audited: Audited) -> pa.Table:
    """Return one row for each record, in the order of the registry's file."""
    records, verdicts, images = audited.records, audited.verdicts, audited.images
    first_M = verdicts.first_image_M
    image = pa.array(first_M, mask=first_M < 0)
    columns: dict[str, Any] = {"row": records.row_M}
    if records.record is not None:
        columns["record"] = records.record
    columns |= {"key": records.key, **records.texts}
    columns |= {
        "verdict": _words([verdict.word for verdict in Verdict], verdicts.verdict_M),
        "why": _reasons(audited),
        "claimed": _words(audited.claims.labels, audited.claims.claim_M),
        "seen": _words(audited.names, verdicts.seen_M),
        "seen_probability": _numbers(verdicts.seen_probability_M),
        "claimed_probability": _numbers(verdicts.claim_probability_M),
        "wrong_probability": _numbers(audited.confusion.wrong_M),
        "same_joint_as": _same_joint(records, audited.first_M),
        "images": verdicts.num_images_M.astype(np.int32),
        "archive": images.texts["archive"].take(image),
        "member_index": pa.array(images.member_index_N).take(image),
    }
    return pa.table(columns)


def image_table(audited: Audited) -> pa.Table:
    """Return one row for each record and each image of it, in the order of the records."""
    joined, images = audited.joined, audited.images
    image = pa.array(joined.image_P)
    return pa.table(
        {
            "row": audited.records.row_M[joined.record_P],
            "archive": images.texts["archive"].take(image),
            "member_index": images.member_index_N[joined.image_P],
            "votes": joined.votes_P,
        }
    )


def safety_table(table: pa.Table, audited: Audited) -> pa.Table:
    """Return one row for each record and each study of its images: the note and its source."""
    safety, (at, image) = audited.safety, _studies(audited)
    study = audited.images.texts["study"].take(pa.array(image))
    rows = table.take(pa.array(at)).append_column("study", study)
    note = _words([note for note, _ in safety.notes], safety.note_M[at])
    source = _words([source for _, source in safety.notes], safety.note_M[at])
    why = _words(["", *(gap.name.lower() for gap in Gap if gap)], safety.gap_M[at])
    names = [name for name in _SAFETY_COLUMNS if name in rows.column_names]
    return pa.table(
        {
            **{name: rows[name] for name in names},
            "mr_safety": pc.fill_null(note.cast(pa.string()), NOT_KNOWN),
            "source": source,
            "why_not_known": why,
        }
    )


def _studies(audited: Audited) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Place of each record and of its first image of each study, in the order of the pairs."""
    record_P, image_P = audited.joined.record_P, audited.joined.image_P
    study = audited.images.texts["study"].combine_chunks().dictionary_encode()
    study_P = places(study)[image_P] + 1
    _, first = np.unique(record_P * (len(study.dictionary) + 1) + study_P, return_index=True)
    first.sort()
    return record_P[first], image_P[first]


def write_tables(
    folder: Path, audited: Audited, table: pa.Table, sample: pa.Table | None = None
) -> None:
    """Write all tables, each whole or not at all.

    Args:
        folder: Where.
        audited: The arrays.
        table: Of the verdicts.
        sample: Rows that were drawn of it; None leaves an older sample as it is.
    """
    safety = safety_table(table, audited)
    worklist = table.take(pa.array(audited.order)).drop_columns(["verdict", "why"])
    is_excluded = pc.equal(table["verdict"].cast(pa.string()), Verdict.EXCLUDED.word)
    excluded = table.append_column("text", _unknown_texts(audited.records)).filter(is_excluded)
    same_joint = table.filter(table["same_joint_as"].is_valid())
    numbers = [name for name in ("row", "record") if name in table.column_names]
    if sample is not None:
        _write_parquet(folder / SAMPLE, sample)
        write_csv(folder / f"{Path(SAMPLE).stem}.csv", sample)
    _write_parquet(folder / VERDICTS, table)
    _write_parquet(folder / IMAGES, image_table(audited))
    for stem, rows in ((WORKLIST, worklist), (SAFETY, safety)):
        _write_parquet(folder / f"{stem}.parquet", rows)
        write_csv(folder / f"{stem}.csv", rows)
    write_csv(folder / EXCLUDED, excluded.select([*numbers, "why", "text"]))
    write_csv(folder / SAME_JOINT, same_joint.select([*numbers, "same_joint_as"]))
    write_csv(folder / UNMATCHED, _unmatched_table(audited, folder))


def _write_parquet(path: Path, table: pa.Table) -> None:
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")


def _reasons(audited: Audited) -> pa.DictionaryArray:
    """Return why a record is undecided, excluded or without an image, in one word; else null."""
    records, verdicts = audited.records, audited.verdicts
    misses = [miss for miss in Miss if miss > Miss.NO_IDENTIFIER]
    enums = (*(d for d in Doubt if d), *(e for e in Exclusion if e), *misses)
    code_M = verdicts.doubt_M.astype(np.int32) - 1
    excluded_M = records.excluded_M > 0
    code_M[excluded_M] = records.excluded_M[excluded_M].astype(np.int32) + len(Doubt) - 2
    missed_M = (verdicts.verdict_M == Verdict.NO_IMAGE) & (audited.miss_M > Miss.NO_IDENTIFIER)
    first = len(enums) - len(misses) - Miss.OTHER_SIDE
    code_M[missed_M] = audited.miss_M[missed_M].astype(np.int32) + first
    return _words([enum.name.lower() for enum in enums], code_M)


def _unknown_texts(records: Records) -> pa.Array:
    """Return the word that a row is excluded for; null for other rows."""
    texts = pa.nulls(len(records), pa.string())
    for why, field in ((Exclusion.UNKNOWN_SIDE, "side"), (Exclusion.UNKNOWN_JOINT, "joint")):
        if field in records.said:
            is_meant = pa.array(records.excluded_M == why)
            texts = pc.if_else(is_meant, records.said[field].combine_chunks(), texts)
    return texts


def _unmatched_table(audited: Audited, folder: Path) -> pa.Table:
    """Return the texts without a match; and those with one that this very file gave."""
    reading = audited.reading
    own = storage.normalise(str(folder / UNMATCHED))
    given = [*reading.meanings] if reading.meanings.uri == own else []
    rows = [{**vars(item), "means": ""} for item in reading.unmatched]
    rows += [{"field": name, "text": text, "means": means} for name, text, means in given]
    return pa.Table.from_pylist(rows, _UNMATCHED_ROW)


def _same_joint(records: Records, first_M: npt.NDArray[np.int64]) -> pa.Array:
    """Return the row of the record that another's joint counts with; null for those that count."""
    is_own_M = first_M == np.arange(len(first_M))
    return pa.array(records.row_M[first_M], mask=is_own_M)


def _words(words: Any, code_M: npt.NDArray[Any]) -> pa.DictionaryArray:
    """Return dictionary array of words by their numbers; null below 0."""
    indices = pa.array(np.asarray(code_M, np.int32), mask=np.asarray(code_M < 0))
    return pa.DictionaryArray.from_arrays(indices, pa.array([*words], pa.string()))


def _numbers(values_M: npt.NDArray[np.float64]) -> pa.Array:
    return pa.array(values_M.astype(np.float32), mask=np.isnan(values_M))


def describe_left_out(found: Findings) -> Iterator[str]:
    """Yield a line for each kind of thing that is in no figure, or that was read by a rule."""
    exclusions, sites = found.exclusions, found.uses[Use.OTHER_SITE]
    yield from (f"Read: {note}" for note in found.notes)
    if found.unmatched:
        yield f"Texts without a match: {len(found.unmatched):,}, see {UNMATCHED}."
    if several := exclusions.get(Exclusion.SEVERAL_RECORDS):
        yield f"Joints with several records: {several:,} records, see {EXCLUDED}."
    if others := exclusions.get(Exclusion.OTHER_COMPONENT):
        yield f"Other components: {others:,} records, see {EXCLUDED}."
    if found.num_same_joint:
        yield f"Joints recorded again: {found.num_same_joint:,} records, see {SAME_JOINT}."
    if sites:
        parts = [f"{name} {count:,}" for name, count in found.site_parts.most_common(3)]
        yield f"Images of another side or joint, or of none: {sites:,} ({', '.join(parts)})."
    if found.num_missing:
        yield f"Left out: {found.num_missing:,} records, see {EXCLUDED}."


def describe_nothing(found: Findings) -> str:
    """Return why no image spoke for or against any record: what most of the records have."""
    counts = [(n, MEANINGS[v]) for v, n in found.verdicts.items() if v is not Verdict.EXCLUDED]
    counts += [(n, EXCLUSIONS[why]) for why, n in found.exclusions.items()]
    count, meaning = max(counts, key=lambda item: item[0])
    return f"No image spoke for or against any record; of {count:,} rows: {meaning}"
