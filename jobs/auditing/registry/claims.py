"""What each record claims, in the catalogue's terms, and the texts that have no meaning there.

The claim is that of the record's implant or product, where the maker, if the catalogue knows it,
and the joint go with it. A product among more words is taken where these leave it what it is and
the maker is not another; in all other cases it is only proposed: a wrong match is worse.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from implant_model.errors import UsageError
from implant_model.package.catalogue import Catalogue
from jobs.auditing.registry.names import Claim, Names
from jobs.auditing.registry.proposals import accepted, propose
from jobs.auditing.registry.records import Records
from jobs.auditing.registry.sites import places, side_of_word
from jobs.auditing.registry.synonyms import ANY, NOTHING
from jobs.auditing.registry.words import NO_SIDE


@dataclass(frozen=True)
class Unmatched:
    """A text of the registry that means nothing in the catalogue.

    Attributes:
        field: Where it is.
        text: As the registry writes it.
        records: How many records have it.
        why: One sentence.
        proposal: The likeliest meaning; empty where nothing is like it.
        score: How alike it is, 0..1; None without one.
    """

    field: str
    text: str
    records: int
    why: str
    proposal: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Problem:
    """A text that means nothing: its field, itself, why, and its record's implants by the maker."""

    field: str
    text: str
    why: str
    made: Claim = frozenset()


@dataclass(frozen=True)
class Said:
    """The texts of one record, and its joint in the catalogue's word; None where it lacks one."""

    implant: str | None = None
    manufacturer: str | None = None
    product: str | None = None
    joint: str | None = None


@dataclass(frozen=True)
class Claimed:
    """What a record claims.

    Attributes:
        claim: The implants that it may mean.
        is_named: Whether a name states them, and not the maker alone.
        problems: Texts without a meaning.
    """

    claim: Claim
    is_named: bool
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class Claims:
    """What the records say, in the catalogue's terms.

    Attributes:
        claim_M: Index of each record's claim; -1 for a record that is not audited.
        sets: The claims, C of them.
        labels: How people call each.
        is_named_M: Whether an implant or product of the catalogue is named.
        said_M: Index of each record's texts; -1 for a record that is not audited.
        problems: Of each of these.
    """

    claim_M: npt.NDArray[np.int32]
    sets: tuple[Claim, ...]
    labels: tuple[str, ...]
    is_named_M: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    said_M: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    problems: tuple[tuple[Problem, ...], ...] = ()


def match(records: Records, names: Names) -> Claims:
    """Find what each record claims.

    Args:
        records: All of the registry's.
        names: The catalogue's names.
    """
    columns = ("implant", "manufacturer", "product")
    coded = [records.texts.get(name) for name in columns] + [records.joint]
    said_M, said = _distinct(coded, records.is_in_M)
    numbers: dict[Claim, int] = {}
    read = [read_claim(texts, names) for texts in said]
    claim_of = [numbers.setdefault(item.claim, len(numbers)) for item in read]
    return Claims(
        np.array([*claim_of, -1], np.int32)[said_M],
        tuple(numbers),
        tuple(describe(claim, names.catalogue) for claim in numbers),
        np.array([*(item.is_named for item in read), False], bool)[said_M],
        said_M,
        tuple(item.problems for item in read),
    )


def list_unmatched(records: Records, claims: Claims, names: Names) -> tuple[Unmatched, ...]:
    """Return the texts without a meaning, most records first, each with its proposal.

    Texts of records that are left out as another component are none: the catalogue need not have
    them.

    Args:
        records: All of the registry's.
        claims: What they claim.
        names: The catalogue's names.
    """
    said = claims.said_M[records.is_listed_M]
    counts = np.bincount(said[said >= 0], minlength=len(claims.problems)).tolist()
    found: Counter[tuple[str, str, str]] = Counter()
    made: dict[tuple[str, str, str], Claim] = {}
    for problems, count in zip(claims.problems, counts, strict=True):
        for item in problems if count else ():
            key = (item.field, item.text, item.why)
            found[key] += count
            made.setdefault(key, item.made)
    for name, why, texts in records.unknown:
        for text, count in texts.items():
            found[name, text, why] += count
    listed = []
    for (name, text, why), count in found.most_common():
        proposal = propose(name, text, names, made.get((name, text, why), frozenset()))
        listed.append(Unmatched(name, text, count, why, *(proposal or ())))
    return tuple(listed)


def read_claim(said: Said, names: Names) -> Claimed:
    """Return the implants that a record may mean, and what could not be matched."""
    made = names.maker(said.manufacturer) if said.manufacturer else frozenset()
    problems: list[Problem] = []
    if said.manufacturer and not made and not names.is_nothing("manufacturer", said.manufacturer):
        problems.append(
            Problem("manufacturer", said.manufacturer, "The catalogue has no such maker.")
        )
    claim = _named(said, names, made, problems)
    is_named = bool(claim)
    if claim is None:
        claim = made
    elif claim and made and not claim & made:
        claim = _settled(
            "product",
            f"{said.manufacturer}: {said.product or said.implant}",
            "In the catalogue another maker makes it.",
            names,
            problems,
        )
    elif claim and made:
        claim &= made
    if claim and said.joint and not claim & names.joint(said.joint):
        named = said.product or said.implant or said.manufacturer
        why = "In the catalogue it is for another joint."
        claim = _settled("joint", f"{said.joint}: {named}", why, names, problems)
    elif said.joint:
        claim &= names.joint(said.joint)
    return Claimed(claim, is_named and bool(claim), tuple(problems))


def _named(said: Said, names: Names, made: Claim, problems: list[Problem]) -> Claim | None:
    """Return what implant and product name; None where neither is said."""
    claim: Claim | None = None
    for name, text in (("implant", said.implant), ("product", said.product)):
        if not text:
            continue
        found = names.product(text, name)
        if not found and names.given(name, text) is None:
            near = names.near_product(text)
            found = near if not said.manufacturer or near & made else frozenset()
        if not found and not names.is_nothing(name, text):
            why = "The catalogue has no such name, synonym or product."
            problems.append(Problem(name, text, why, made))
        if found or claim is None:
            claim = found if not claim else (claim & found or claim)
    return claim


def _settled(field: str, text: str, why: str, names: Names, problems: list[Problem]) -> Claim:
    """Return what the user said that a contradiction within a record means; else it is listed."""
    if names.given(field, text) is None:
        problems.append(Problem(field, text, why))
        return frozenset()
    return names.product(text, field)


def check_meanings(names: Names) -> None:
    """Refuse a meaning that is none.

    Raises:
        UsageError: It is no side, joint, maker, name or product that is known, by its field.
    """
    fields = ("side", "joint", "manufacturer", "product")
    for name, text, means in names.meanings:
        asked = {"implant": ("product",), ANY: fields}.get(name, (name,))
        if name not in ("implant", ANY, *fields):
            raise UsageError(
                f"--synonyms has {name[:80]!r} in its column field, beside {text[:80]!r}; "
                "implant, manufacturer, product, side and joint are accepted."
            )
        if means.casefold() != NOTHING and not any(_is_known(f, means, names) for f in asked):
            _refuse(text, means, asked, names)


def _is_known(field: str, means: str, names: Names) -> bool:
    if field == "side":
        return side_of_word(means) != NO_SIDE
    if field == "manufacturer":
        return bool(names.means_maker(means))
    is_joint = field == "joint" and names.means_joint(means) is not None
    return is_joint or bool(names.means_product(means))


def _refuse(text: str, means: str, fields: Sequence[str], names: Names) -> None:
    near = [found for name in fields if (found := propose(name, means, names))]
    hint = f" (the nearest is {max(near, key=lambda item: item[1])[0]!r})" if near else ""
    words = [word for name in fields for word in accepted(name, names)]
    listed = "; ".join(words[:60]) + ("; ..." if len(words) > 60 else "")
    raise UsageError(
        f"--synonyms gives {text[:80]!r} the meaning {means[:80]!r}, which is not known{hint}; "
        f"these may be written: {listed}; and {NOTHING!r} for what is nothing of the catalogue."
    )


def describe(claim: Claim, catalogue: Catalogue) -> str:
    """Return a claim for people: at most three names."""
    found = [catalogue[index].name for index in sorted(claim)]
    more = f" or {len(found) - 3} others" if len(found) > 3 else ""
    return " or ".join(found[:3]) + more


def counted_by(records: Records, names: Names) -> dict[str, pa.DictionaryArray]:
    """The texts that records are counted by: in the catalogue's words where it knows them."""
    words = {
        "implant": lambda text: describe(names.product(text, "implant"), names.catalogue),
        "product": lambda text: _family(names.product(text), names.catalogue),
        "manufacturer": lambda text: _maker_name(names.maker(text), names.catalogue),
    }
    counted = dict(records.texts)
    for name in words.keys() & counted.keys():
        column = counted[name]
        said = [words[name](text) or text for text in column.dictionary.to_pylist()]
        counted[name] = pa.array(said, pa.string()).take(column.indices).dictionary_encode()
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
    said = [Said(*texts) for texts in zip(*words, strict=True)][skip:]
    return numbers.astype(np.int64) - skip, said
