"""The implants that a model tells apart, in the order of its outputs."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from implant_model.errors import UsageError
from implant_model.json_fields import Fields

MAX_IMPLANTS = 10_000
MAX_NAME = 200
MAX_NOTE = 2000
MAX_SYNONYMS = 100


@dataclass(frozen=True)
class Implant:
    """One implant, as it is named in the tables.

    Attributes:
        name: Unique in its catalogue, such as `depuy-corail-collared`.
        joint: `hip`, `knee`, `shoulder`, ...
        manufacturer: Who made it.
        product: Trade name, where it differs from the name.
        mr_safety: What the maker states of it in a magnetic field: shown, never inferred.
        mr_safety_source: Where that is stated; wanted wherever `mr_safety` is given.
        synonyms: Other names that registries use for it.

    Raises:
        UsageError: From the constructor: an empty, overlong or unprintable text.
    """

    name: str
    joint: str
    manufacturer: str
    product: str | None = None
    mr_safety: str | None = None
    mr_safety_source: str | None = None
    synonyms: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("name", "joint", "manufacturer", "product"):
            self._check(field, getattr(self, field), MAX_NAME)
        for field in ("mr_safety", "mr_safety_source"):
            self._check(field, getattr(self, field), MAX_NOTE)
        for synonym in self.synonyms:
            self._check("synonyms", synonym, MAX_NAME)
        if self.mr_safety is not None and self.mr_safety_source is None:
            raise UsageError(
                f"The implant {self.name!r} has an MR-safety note without a source; "
                "add mr_safety_source, or leave the note out."
            )

    def _check(self, field: str, value: object, most: int) -> None:
        if value is None and field not in ("name", "joint", "manufacturer"):
            return
        whole = isinstance(value, str) and 1 <= len(value) <= most and value == value.strip()
        if not whole or not str(value).isprintable():
            raise UsageError(
                f"The implant {str(self.name)[:MAX_NAME]!r} has {field} {str(value)[:80]!r}; "
                f"1 to {most} printable characters without blanks around them are accepted."
            )

    def to_json(self) -> dict[str, object]:
        """Return the fields as they stand in `package.json`, empty ones left out."""
        document: dict[str, object] = {
            "name": self.name,
            "joint": self.joint,
            "manufacturer": self.manufacturer,
            "product": self.product,
            "mr_safety": self.mr_safety,
            "mr_safety_source": self.mr_safety_source,
            "synonyms": list(self.synonyms) or None,
        }
        return {name: value for name, value in document.items() if value is not None}

    @classmethod
    def from_json(cls, document: object, where: str = "implant") -> "Implant":
        """Read what `to_json` wrote.

        Raises:
            PackageError: A field is missing, unknown or of the wrong type.
            UsageError: A text is not acceptable.
        """
        fields = Fields(document, where)
        synonyms = fields.items("synonyms", 0, MAX_SYNONYMS) if fields.has("synonyms") else ()
        implant = cls(
            name=fields.text("name", MAX_NAME),
            joint=fields.text("joint", MAX_NAME),
            manufacturer=fields.text("manufacturer", MAX_NAME),
            product=fields.text_or_none("product", MAX_NAME),
            mr_safety=fields.text_or_none("mr_safety", MAX_NOTE),
            mr_safety_source=fields.text_or_none("mr_safety_source", MAX_NOTE),
            synonyms=tuple(synonyms),  # type: ignore[arg-type]  # checked by the constructor
        )
        fields.close()
        return implant


@dataclass(frozen=True)
class Catalogue:
    """Implants in the order of a model's outputs.

    Raises:
        UsageError: From the constructor: no implant, too many, or a name or synonym that means
            two of them (case, blanks, `-` and `_` make no difference).
    """

    implants: tuple[Implant, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.implants) <= MAX_IMPLANTS:
            raise UsageError(
                f"The catalogue has {len(self.implants)} implants; "
                f"1 to {MAX_IMPLANTS} are accepted."
            )
        owners: dict[str, str] = {}
        for implant in self.implants:
            for text in {folded(name) for name in (implant.name, *implant.synonyms)}:
                if text in owners:
                    raise UsageError(
                        f"The catalogue's name or synonym {text!r} means two implants, "
                        f"{owners[text]!r} and {implant.name!r}; each must be unique."
                    )
                owners[text] = implant.name

    def __len__(self) -> int:
        return len(self.implants)

    def __iter__(self) -> Iterator[Implant]:
        return iter(self.implants)

    def __getitem__(self, index: int) -> Implant:
        return self.implants[index]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names, in the order of the model's outputs."""
        return tuple(implant.name for implant in self.implants)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {
            folded(text): index
            for index, implant in enumerate(self.implants)
            for text in (implant.name, *implant.synonyms)
        }

    def index(self, name: str) -> int:
        """Return the place of an implant by its exact name.

        Raises:
            UsageError: There is no such implant.
        """
        if name not in self.names:
            raise UsageError(
                f"The catalogue has no implant {name[:MAX_NAME]!r}; it has "
                f"{', '.join(self.names[:20])}{', ...' if len(self) > 20 else ''}."
            )
        return self.names.index(name)

    def find(self, text: str) -> int | None:
        """Return the place of the implant with this name or synonym, or None.

        Case, blanks, `-` and `_` make no difference: registries write `Corail  collared`.
        """
        return self._indices.get(folded(text))

    def to_json(self) -> list[dict[str, object]]:
        """Return the implants as they stand in `package.json`."""
        return [implant.to_json() for implant in self.implants]

    @classmethod
    def from_json(cls, document: object, where: str = "implants") -> "Catalogue":
        """Read what `to_json` wrote.

        Raises:
            PackageError: A field is missing, unknown or of the wrong type.
            UsageError: Names are not unique or not acceptable.
        """
        items = Fields({"implants": document}, where).items("implants", 1, MAX_IMPLANTS)
        return cls(
            tuple(Implant.from_json(item, f"{where}[{place}]") for place, item in enumerate(items))
        )


_SIGNS = dict.fromkeys(map(ord, "\u2122\u00ae\u2120\U0001f16a\U0001f16b\U0001f16c"), " ")


def folded(text: str) -> str:
    """Return a name with what registries write differently taken away: case, blanks, - and _.

    So are the signs of trademarks, before NFKC makes letters of them.
    """
    plain = unicodedata.normalize("NFKC", text.translate(_SIGNS)).casefold()
    return " ".join(plain.replace("-", " ").replace("_", " ").split())


_JRI, _SMITH_NEPHEW = "JRI Orthopaedics", "Smith & Nephew"
ORTHONET = Catalogue(
    (
        Implant("depuy-corail-collared", "hip", "DePuy", "Corail, with collar"),
        Implant("depuy-corail-collarless", "hip", "DePuy", "Corail, without collar"),
        Implant("jri-furlong-evolution-collared", "hip", _JRI, "Furlong Evolution, with collar"),
        Implant(
            "jri-furlong-evolution-collarless", "hip", _JRI, "Furlong Evolution, without collar"
        ),
        Implant("smith-nephew-anthology", "hip", _SMITH_NEPHEW, "Anthology"),
        Implant("smith-nephew-polarstem", "hip", _SMITH_NEPHEW, "Polarstem"),
        Implant("stryker-accolade-ii", "hip", "Stryker", "Accolade II"),
        Implant("stryker-exeter", "hip", "Stryker", "Exeter"),
        Implant("depuy-sigma", "knee", "DePuy", "Sigma"),
        Implant("smith-nephew-genesis-ii", "knee", _SMITH_NEPHEW, "Genesis II"),
        Implant("smith-nephew-legion", "knee", _SMITH_NEPHEW, "Legion"),
        Implant("zimmer-biomet-oxford", "knee", "Zimmer Biomet", "Oxford"),
    )
)
"""The twelve implants of OrthoNet (Patel et al. 2021), in the order of its labels."""
