"""Years of a column of dates, which are all of one form or have none.

A column's texts are sorted by their shape (`99.99.9999`, `99999999`, ...), and the order of day,
month and year of each shape is the one that fits all of its texts: `01192020` is of 2020 where
`12202015` is beside it. Where several orders fit and give different years, the year is not known;
neither is that of a text which is no date.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

import pyarrow as pa

FIRST_YEAR: Final = 1900
_SERIAL_ZERO: Final = date(1899, 12, 30)
"""Day 0 of Excel's serial numbers, as they are right from March 1900."""
_FIRST_SERIAL: Final = 18_264
"""1950-01-01: earlier arthroplasties are in no registry, and smaller numbers are no dates."""
_MIN_SHARE: Final = 0.95
"""Share of a shape's texts that an order must fit; those that it does not are no dates."""
_TIME: Final = re.compile(r"[T ]+\d{1,2}:\d{2}.*$|(?<=^\d{8})[ T]\d{4,6}$")
_PARTS: Final = re.compile(r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})\.?")
_LONE_YEAR: Final = re.compile(r"(?<!\d)(?:19|20)\d{2}(?!\d)")
Order = str
"""Letters d, m, y in the order of the parts."""


@dataclass(frozen=True)
class Years:
    """What a column of dates states.

    Attributes:
        texts: The year of each row, a dictionary array; null where it is not known.
        num_unread: Rows that have a text of which the year is not known.
        examples: Such texts with each digit as 9, most rows first.
    """

    texts: pa.DictionaryArray
    num_unread: int
    examples: tuple[str, ...]


def read_years(column: pa.ChunkedArray) -> Years:
    """Find the year of each row of a column of dates."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    found = years_of(texts)
    years = pa.array([None if found[t] is None else str(found[t]) for t in texts], pa.string())
    taken = years.take(encoded.indices)
    shapes: dict[str, int] = {}
    for item in encoded.filter(taken.is_null()).drop_null().value_counts().to_pylist():
        shape = re.sub(r"\d", "9", str(item["values"]))[:30]
        shapes[shape] = shapes.get(shape, 0) + int(item["counts"])
    examples = tuple(sorted(shapes, key=lambda shape: (-shapes[shape], shape))[:3])
    return Years(taken.dictionary_encode(), sum(shapes.values()), examples)


def years_of(texts: Sequence[str]) -> dict[str, int | None]:
    """Return the year of each text, decided by all of them; None where it is not known."""
    shapes: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        shapes.setdefault(_shape(text), []).append(text)
    found: dict[str, int | None] = {}
    for shape, same in shapes.items():
        readers = _READERS.get(shape, (_lone_year,))
        must_agree = len(readers) > 1 or shape == "5"
        found |= _decide(same, readers, _MIN_SHARE if must_agree else 0)
    return found


Reader = Callable[[str], int | None]


def _decide(
    texts: Sequence[str], readers: Sequence[Reader], min_share: float
) -> Mapping[str, int | None]:
    """Return the years by the reader that fits the texts; of several, they must agree."""
    read = [{text: reader(text) for text in texts} for reader in readers]
    fitting = [sum(year is not None for year in years.values()) for years in read]
    most = max(fitting)
    best = [years for years, count in zip(read, fitting, strict=True) if count == most]
    if most < min_share * len(texts):
        return dict.fromkeys(texts)
    return {
        text: best[0][text] if len({years[text] for years in best}) == 1 else None for text in texts
    }


def _shape(text: str) -> str:
    said = _without_time(text)
    if parts := _PARTS.fullmatch(said):
        first, _, last = (len(parts[place]) for place in (1, 3, 4))
        sign = parts[2]
        if first == 4 and last <= 2:
            return "ymd"
        if last == 4 and first <= 2:
            return f"d{sign}y4"
        return f"d{sign}y2" if first <= 2 and last == 2 else ""
    whole = re.sub(r"[.,]\d+$", "", said)
    return str(len(whole)) if whole.isdigit() else ""


def _without_time(text: str) -> str:
    return _TIME.sub("", text.strip().strip("'\"="))


def _parts(order: Order) -> Reader:
    """Return a reader of dates whose parts are between signs."""

    def read(text: str) -> int | None:
        found = _PARTS.fullmatch(_without_time(text))
        numbers = [int(found[place]) for place in (1, 3, 4)] if found else []
        is_short = found is not None and max(len(found[1]), len(found[4])) <= 2
        return _year(dict(zip(order, numbers, strict=True)), is_short)

    return read


def _digits(order: Order, lengths: Sequence[int]) -> Reader:
    """Return a reader of dates that are digits alone."""

    def read(text: str) -> int | None:
        digits = re.sub(r"[.,]\d+$", "", _without_time(text))
        numbers, start = {}, 0
        for letter, length in zip(order, lengths, strict=True):
            numbers[letter], start = int(digits[start : start + length]), start + length
        return _year(numbers, max(lengths) == 2)

    return read


def _year(numbers: Mapping[str, int], is_short: bool) -> int | None:
    year, now = numbers["y"], datetime.now(UTC).year
    if is_short:
        year += 2000 if year <= now % 100 else 1900
    try:
        date(year, numbers["m"], numbers["d"])
    except ValueError:
        return None
    return year if FIRST_YEAR <= year <= now + 1 else None


def _serial(text: str) -> int | None:
    number = int(re.split(r"[.,]", _without_time(text))[0])
    year = (_SERIAL_ZERO + timedelta(days=number)).year
    return year if number >= _FIRST_SERIAL and year <= datetime.now(UTC).year + 1 else None


def _lone_year(text: str) -> int | None:
    """Return the one number that is a year, where no other has more than two digits."""
    found = _LONE_YEAR.findall(text)
    others = [number for number in re.findall(r"\d+", _LONE_YEAR.sub("", text)) if len(number) > 2]
    return int(found[0]) if len(found) == 1 and not others else None


_READERS: Final[Mapping[str, Sequence[Reader]]] = {
    "ymd": (_parts("ymd"),),
    "d.y4": (_parts("dmy"), _parts("mdy")),
    "d/y4": (_parts("dmy"), _parts("mdy")),
    "d-y4": (_parts("dmy"), _parts("mdy")),
    "d.y2": (_parts("dmy"), _parts("mdy")),
    "d/y2": (_parts("dmy"), _parts("mdy"), _parts("ymd")),
    "d-y2": (_parts("dmy"), _parts("mdy"), _parts("ymd")),
    "4": (_lone_year,),
    "5": (_serial,),
    "6": tuple(_digits(order, (2, 2, 2)) for order in ("dmy", "mdy", "ymd")),
    "8": (
        _digits("ymd", (4, 2, 2)),
        _digits("dmy", (2, 2, 4)),
        _digits("mdy", (2, 2, 4)),
    ),
}
