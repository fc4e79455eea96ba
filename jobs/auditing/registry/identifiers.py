"""Identifiers as spreadsheets and pandas write them, undone where the predictions then have them.

`100002.0` and `1.00002E+05` are numbers that a program took an identifier for, `="100004"` and
`'100004` keep a spreadsheet from doing so. What is undone is found among the predictions, and what
matches as it is stays so. Zeros that were lost at the front are never put back, since `0042` and
`42` may be two patients; `lost_zeros` only finds out that they are missing.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from implant_model.privacy import Protector, trimmed
from jobs.auditing.registry.registry_file import RegistryFile

_FORMULA: Final = re.compile(r'="?([^"]*)"?')
_WHOLE: Final = re.compile(r"(\d+)[.,]0+")
_SCIENTIFIC: Final = re.compile(r"(\d)(?:[.,](\d+))?[eE]\+?(\d{1,2})")
_MARKED: Final = r"""^['"=]|['"]$|^\d+[.,]\d+(?:[eE]\+?\d+)?$"""
"""Cheap to find among a million: what may be written by a program."""
MAX_ZEROS: Final = 12
"""Digits up to which zeros are tried at the front of a key."""
MAX_TRIED: Final = 200
"""Keys that they are tried on."""


@dataclass(frozen=True)
class Known:
    """The identifiers of the predictions, read when they are asked for.

    Attributes:
        dataset: The table `predictions`.
        model: Whose rows are meant.
        kind: Column of the identifiers.
        are_pseudonyms: Whether these are pseudonyms.
        protector: Makes pseudonyms; None without a key.
    """

    dataset: Any
    model: str
    kind: str
    are_pseudonyms: bool = False
    protector: Protector | None = None

    def has(self, texts: Sequence[str]) -> dict[str, bool]:
        """Return whether the predictions have each of some raw identifiers."""
        names = [*texts]
        if self.are_pseudonyms and self.protector is not None:
            names = [self.protector.identifier(self.kind, text) or "" for text in texts]
        is_in = pc.is_in(pa.array(names, pa.string()), self._identifiers).to_pylist()
        return dict(zip(texts, is_in, strict=True))

    @cached_property
    def _identifiers(self) -> pa.Array:
        of_model = pc.field("model") == self.model
        batches = self.dataset.to_batches(columns=[self.kind], filter=of_model)
        pieces = [pc.unique(batch[self.kind]) for batch in batches]
        return pc.unique(pa.chunked_array(pieces, pa.string())).drop_null()


@dataclass(frozen=True)
class Undone:
    """A file whose keys are as the predictions have them.

    Attributes:
        file: With the column of the key rewritten.
        num_rows: Rows of which the key was.
        notes: A sentence on what was undone; empty where nothing was.
    """

    file: RegistryFile
    num_rows: int = 0
    notes: tuple[str, ...] = ()


def undo(file: RegistryFile, known: Known) -> Undone:
    """Rewrite the keys that are found among the predictions once a program's mark is undone.

    Args:
        file: As it was read.
        known: The predictions' identifiers; read only where a key bears such a mark.
    """
    column = file.table[file.key]
    keys = pc.unique(column.drop_null())
    keys = keys.filter(pc.match_substring_regex(keys, _MARKED))
    marked = {key: [*plainer(key)] for key in keys.to_pylist()}
    marked = {key: forms for key, forms in marked.items() if forms}
    if not marked:
        return Undone(file)
    there = known.has([*{*marked, *(form for forms in marked.values() for form in forms)}])
    became = {
        key: next(form for form in forms if there[form])
        for key, forms in marked.items()
        if not there[key] and any(there[form] for form in forms)
    }
    if not became:
        return Undone(file)
    encoded = column.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    again = pa.array([became.get(text, text) for text in texts], pa.string())
    changed = pa.array([text in became for text in texts]).take(encoded.indices)
    place = file.table.column_names.index(file.key)
    rewritten = pa.chunked_array([again.take(encoded.indices)])
    table = file.table.set_column(place, file.key, rewritten)
    count, (before, after) = int(pc.sum(changed).as_py()), next(iter(became.items()))
    note = (
        f"{file.columns[file.key]}: {count:,} identifiers are read as they were before a "
        f"spreadsheet, such as {_form(before)} as {_form(after)} (digits as 9)."
    )
    return Undone(replace(file, table=table), count, (note,))


def plainer(text: str) -> Iterator[str]:
    """Yield the identifiers that a text may stand for, each only where all its digits are there."""
    said = trimmed(text.removeprefix("'"))
    if formula := _FORMULA.fullmatch(said):
        said = trimmed(formula[1])
    if len(said) > 2 and said[0] == said[-1] and said[0] in "\"'":
        said = trimmed(said[1:-1])
    if said and said != text:
        yield said
    if whole := _WHOLE.fullmatch(said):
        yield whole[1]
    if power := _SCIENTIFIC.fullmatch(said):
        digits, places = power[2] or "", int(power[3])
        if len(digits.rstrip("0")) <= places <= len(digits):
            yield power[1] + digits[:places]


def lost_zeros(keys: Sequence[str], known: Known) -> int:
    """Return how many digits most of some keys without an image would fit with; 0 if they do not.

    Args:
        keys: As the registry has them, none of them among the predictions.
        known: The predictions' identifiers.
    """
    bare = [key for key in keys if key.isdigit() and not key.startswith("0")]
    some = bare[:: max(len(bare) // MAX_TRIED, 1)][:MAX_TRIED]
    there = {
        digits: sum(known.has([key.zfill(digits) for key in some if len(key) < digits]).values())
        for digits in range(2, MAX_ZEROS + 1)
    }
    best = max(there, key=lambda digits: there[digits])
    return best if some and 2 * there[best] > len(some) else 0


def _form(text: str) -> str:
    """Return the form of an identifier alone: each digit as 9, each letter as A."""
    letters = text if _SCIENTIFIC.search(text) else re.sub(r"[^\W\d_]", "A", text)
    return re.sub(r"\d", "9", letters)
