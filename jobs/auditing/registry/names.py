"""Makers' and products' names as registries write them > implants of the catalogue.

A record's claim is a set of implants: `Corail` alone means the stem with a collar or the one
without, and a maker alone means all that it makes for the joint. The rules, first one that fits:

1. `implant`, or else `product`, is a name or synonym of one implant;
2. it is a product of the catalogue, or such a product up to its first comma;
3. it is a maker's name followed by such a product;
4. nothing but a maker is named: all its implants.

Then the maker, where the catalogue knows it, and the joint must go with the implant. Case,
blanks, punctuation and legal forms (`Ltd`, `GmbH`, ...) make no difference.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from implant_model import storage
from implant_model.errors import NotFoundError, UsageError
from implant_model.package.catalogue import Catalogue, folded
from jobs.auditing.registry.records import Records
from jobs.auditing.registry.sites import places

Claim = frozenset[int]
"""Indices of implants; empty where the catalogue has none that fits."""
# fmt: off
_LEGAL: Final = frozenset((
    "ag", "bv", "co", "company", "corp", "corporation", "gmbh", "inc", "international", "kg",
    "limited", "llc", "ltd", "nv", "orthopaedic", "orthopaedics", "orthopedic", "orthopedics",
    "plc", "sa", "sas", "spa",
))
# fmt: on


@dataclass(frozen=True)
class Unmatched:
    """A text of the registry that means nothing in the catalogue.

    Attributes:
        field: Where it is.
        text: As the registry writes it.
        records: How many records have it.
        why: One sentence.
    """

    field: str
    text: str
    records: int
    why: str


@dataclass(frozen=True)
class Claims:
    """What the records say, in the catalogue's terms.

    Attributes:
        claim_M: Index of each record's claim; -1 for a record that is not audited.
        sets: The claims, C of them.
        labels: How people call each.
        unmatched: Texts without a meaning, most records first.
    """

    claim_M: npt.NDArray[np.int32]
    sets: tuple[Claim, ...]
    labels: tuple[str, ...]
    unmatched: tuple[Unmatched, ...]


class Names:
    """The catalogue's names, and what else texts are known to mean.

    Args:
        catalogue: Of the model.
        meanings: Texts of the registry and what they mean, in words that the catalogue knows.
    """

    def __init__(self, catalogue: Catalogue, meanings: Mapping[str, str] | None = None) -> None:
        self.catalogue = catalogue
        given = meanings or {}
        self._meanings = {plain(text): plain(meant) for text, meant in given.items()}

    @cached_property
    def _by_name(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for index, implant in enumerate(self.catalogue):
            for text in (implant.name, *implant.synonyms):
                found.setdefault(plain(text), set()).add(index)
        return found

    @cached_property
    def _by_product(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for index, implant in enumerate(self.catalogue):
            if implant.product is not None:
                family = implant.product.partition(",")[0]
                for text in {plain(implant.product), plain(family)}:
                    found.setdefault(text, set()).add(index)
        return found

    @cached_property
    def _by_maker(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for index, implant in enumerate(self.catalogue):
            found.setdefault(maker(implant.manufacturer), set()).add(index)
        return found

    def product(self, text: str) -> Claim:
        """Return implants that a product's or an implant's name means."""
        said = self._meanings.get(plain(text), plain(text))
        found = self._by_name.get(said) or self._by_product.get(said)
        if found is None:
            for name in self._by_maker:
                if said.startswith(f"{name} "):
                    rest = self._by_product.get(said.removeprefix(f"{name} "), set())
                    found = (found or set()) | (rest & self._by_maker[name])
        return frozenset(found or ())

    def maker(self, text: str) -> Claim:
        """Return implants of a maker."""
        said = self._meanings.get(plain(text), plain(text))
        return frozenset(self._by_maker.get(maker(said), ()))

    def joint(self, name: str) -> Claim:
        """Return implants for a joint."""
        return frozenset(i for i, implant in enumerate(self.catalogue) if implant.joint == name)


def plain(text: str) -> str:
    """Return a name without case, punctuation and surplus blanks."""
    return " ".join(re.sub(r"[^\w\s]", " ", folded(text).replace("&", " and ")).split())


def maker(text: str) -> str:
    """Return a maker's name without its legal form."""
    words = [word for word in plain(text).split() if word not in _LEGAL]
    return " ".join(words) or plain(text)


Said = tuple[str | None, str | None, str | None, str | None]
"""Implant, manufacturer, product and joint of a record."""


def match(records: Records, names: Names) -> Claims:
    """Find what each record claims.

    Args:
        records: All of the registry's.
        names: The catalogue's names.
    """
    columns = ("implant", "manufacturer", "product")
    coded = [records.texts.get(name) for name in columns] + [records.joint]
    code_M, said = _distinct(coded, records.is_in_M)
    numbers: dict[Claim, int] = {}
    unmatched: Counter[tuple[str, str, str]] = Counter()
    counts = np.bincount(code_M[code_M >= 0], minlength=len(said))
    claim_of = np.full(len(said) + 1, -1, np.int32)
    for place, words in enumerate(said):
        claim, problems = read_claim(words, names)
        claim_of[place] = numbers.setdefault(claim, len(numbers))
        for problem in problems:
            unmatched[problem] += int(counts[place])
    listed = [Unmatched(*problem[:2], n, problem[2]) for problem, n in unmatched.most_common()]
    return Claims(
        claim_of[code_M],
        tuple(numbers),
        tuple(describe(claim, names.catalogue) for claim in numbers),
        tuple(listed),
    )


def read_claim(said: Said, names: Names) -> tuple[Claim, list[tuple[str, str, str]]]:
    """The implants that a record may mean, and what could not be matched: field, text, why."""
    implant, manufacturer, product, joint = said
    problems: list[tuple[str, str, str]] = []
    made = names.maker(manufacturer) if manufacturer else frozenset()
    if manufacturer and not made:
        problems.append(("manufacturer", manufacturer, "The catalogue has no such maker."))
    claim: Claim | None = None
    for field, text in (("implant", implant), ("product", product)):
        found = names.product(text) if text else frozenset()
        if text and not found:
            problems.append((field, text, "The catalogue has no such name, synonym or product."))
        if text and (found or claim is None):
            claim = found if not claim else (claim & found or claim)
    if claim is None:
        claim = made
    elif claim and made and not claim & made:
        text = f"{manufacturer}: {product or implant}"
        problems.append(("product", text, "In the catalogue another maker makes it."))
        claim = frozenset()
    elif claim and made:
        claim &= made
    if claim and joint and not claim & names.joint(joint):
        text = f"{joint}: {product or implant or manufacturer}"
        problems.append(("joint", text, "In the catalogue it is for another joint."))
        return frozenset(), problems
    return (claim & names.joint(joint) if joint else claim), problems


def describe(claim: Claim, catalogue: Catalogue) -> str:
    """Return a claim for people: at most three names."""
    found = [catalogue[index].name for index in sorted(claim)]
    more = f" or {len(found) - 3} others" if len(found) > 3 else ""
    return " or ".join(found[:3]) + more


def counted_by(records: Records, names: Names) -> dict[str, pa.DictionaryArray]:
    """The texts that records are counted by: in the catalogue's words where it knows them."""
    words = {
        "implant": lambda text: describe(names.product(text), names.catalogue),
        "product": lambda text: _family(names.product(text), names.catalogue),
        "manufacturer": lambda text: _maker_name(names.maker(text), names.catalogue),
    }
    counted = dict(records.texts)
    for field in words.keys() & counted.keys():
        column = counted[field]
        said = [words[field](text) or text for text in column.dictionary.to_pylist()]
        counted[field] = pa.array(said, pa.string()).take(column.indices).dictionary_encode()
    return counted


def _family(claim: Claim, catalogue: Catalogue) -> str:
    """Return the product that all implants of a claim are, if need be up to its first comma."""
    products = [catalogue[index].product or "" for index in sorted(claim)]
    for found in (products, [product.partition(",")[0] for product in products]):
        if len(set(found)) == 1 and found[0]:
            return found[0]
    return describe(claim, catalogue)


def _maker_name(claim: Claim, catalogue: Catalogue) -> str:
    return catalogue[min(claim)].manufacturer if claim else ""


def _distinct(
    coded: list[pa.DictionaryArray | None], is_in_M: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], list[Said]]:
    """Numbers the combinations of texts that audited records have; -1 for the other records."""
    code_M = np.zeros(len(is_in_M), np.int64)
    for column in coded:
        if column is not None:
            code_M = code_M * (len(column.dictionary) + 1) + places(column) + 1
            _, code_M = np.unique(code_M, return_inverse=True)
    code_M = np.where(is_in_M, code_M, -1)
    found, first, numbers = np.unique(code_M, return_index=True, return_inverse=True)
    skip = int(len(found) > 0 and found[0] < 0)
    words = [
        [None] * len(first) if column is None else column.take(pa.array(first)).to_pylist()
        for column in coded
    ]
    said = list(zip(*words, strict=True))[skip:]
    return numbers.astype(np.int64) - skip, said


_DELIMITERS: Final = (",", ";", "\t")


def read_synonyms(uri: str | None) -> dict[str, str]:
    """Read a table of `text` and `means`; rows without a meaning are passed over.

    Raises:
        UsageError: It is not there, no CSV in UTF-8 or cp1252, or lacks one of the columns.
    """
    if uri is None:
        return {}
    try:
        text = _decoded(storage.read_bytes(uri))
        delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
        lines = io.StringIO(text, newline="")
        rows = list(csv.DictReader(lines, delimiter=delimiter, strict=True))
        return {_bare(row["text"]): row["means"].strip() for row in rows if row["means"].strip()}
    except NotFoundError as error:
        raise UsageError(f"--synonyms cannot be read: {error}") from error
    except (UnicodeDecodeError, csv.Error, KeyError, AttributeError) as error:
        raise UsageError(
            f"The synonyms file {uri} is no CSV in UTF-8 or cp1252 with the columns text and means."
        ) from error


def _decoded(data: bytes) -> str:
    """Return text of other encodings is hardly ever UTF-8 by chance."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _bare(text: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from running it."""
    return text[1:] if text[:2] in ("'=", "'+", "'-", "'@") else text
