"""How registries spell names of makers and products, without knowing any catalogue.

What makes no difference: case, blanks, punctuation, HTML's entities, signs of trademarks, full
stops of abbreviations (`P.F.C.`, `S.p.A.`), legal forms, Roman or Arabic numerals.
"""

import html
import re
from collections.abc import Mapping
from typing import Final

from implant_model.package.catalogue import folded

# fmt: off
_LEGAL_FORMS: Final = """
    ab ag aps as bv co company corp corporation deutschland europe france gb germany gmbh group
    inc international intl ireland italia italy kg limited llc ltd medical nv oy oyj pty plc
    products orthopaedic orthopaedics orthopedic orthopedics orthopadie orthopädie ortho recon sa
    sarl sas schweiz sl spa sro srl switzerland uk us usa
"""
ALIASES: Final[Mapping[str, str]] = {
    "depuy synthes": "depuy", "s and n": "smith and nephew", "smith nephew": "smith and nephew",
    "biomet": "zimmer biomet", "zimmer": "zimmer biomet", "stryker howmedica osteonics": "stryker",
    "joint replacement instrumentation": "jri",
}
"""Names of makers that are surely of one whose catalogue name is another."""
FORMER: Final[Mapping[str, str]] = {
    "howmedica": "stryker", "howmedica osteonics": "stryker", "osteonics": "stryker",
    "johnson and johnson": "depuy", "j and j": "depuy", "jnj": "depuy", "synthes": "depuy",
    "sulzer": "zimmer biomet", "centerpulse": "zimmer biomet", "sn": "smith and nephew",
    "richards": "smith and nephew", "smith": "smith and nephew",
}
"""Names that are proposed and not taken: they made other products, too."""
_BESIDE_MAKERS: Final = """
    and howmedica osteonics synthes johnson j jnj former formerly ehemals previously by ex now
    part of richards companies joint reconstruction mitek
"""
_COLLARS: Final = (
    (r"(?:without|w o|ohne|sans|sin|senza|sem|utan|uden|uten|zonder|bez|non|no)(?: el| la| le)?"
     r" (?:collar(?:ed)?|kragen|collerette|collier|collare|cuello|krage|kraag|colar|kolnierza)",
     "without collar"),
    (r"(?:collarless|kragenlos|uncollared|kraagloos|kragefri)", "without collar"),
    (r"(?:with|w|mit|avec|con|com|med|met)(?: el| la| le)?"
     r" (?:collar|kragen|collerette|collier|collare|cuello|krage|kraag|colar|kolnierzem)",
     "with collar"),
    (r"(?:collared|kragenschaft)", "with collar"),
)
_HARMLESS_WORDS: Final = """
    size gr grosse groesse taille talla maat nr no num amt v40 ha hac coated cemented cementless
    uncemented zementiert zementierter zementfrei zementfreier unzementiert cimentee cimente
    stem stems schaft hueftschaft huftschaft femoral femur tige vastago stelo stam std standard
    offset high hip knee hufte huefte huft knie system prosthesis prothesis prothese implant
    primary primar total tha thr tka tkr uka ukr left right links rechts li re degree titan titanium
    taper ti oxinium cr ps pfc fixed mobile bearing tibial insert tray rp partial uni
    unicompartmental unicondylar phase microplasty medial the brand mm cm deg
"""
# fmt: on
_LEGAL: Final = frozenset(_LEGAL_FORMS.split())
_BESIDE: Final = frozenset(_BESIDE_MAKERS.split())
_HARMLESS: Final = frozenset(_HARMLESS_WORDS.split())
_COLLAR_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "without collar": (
        "ohne kragen",
        "sans collerette",
        "sin collar",
        "senza collare",
        "zonder kraag",
        "utan krage",
        "collarless",
    ),
    "with collar": (
        "mit kragen",
        "avec collerette",
        "con collar",
        "con collare",
        "met kraag",
        "med krage",
        "collared",
    ),
}
_SIGN: Final = re.compile(r"(?i:\((?:r|tm|sm)\))|(?<=[a-z])(?:TM|SM)\b")
_ENTITY: Final = re.compile(r"&#?\w+;")
_DOTTED: Final = re.compile(r"(?<![^\W_])([^\W\d_])\.(?=[^\W\d_](?:\.|\b))")
_NUMBER: Final = re.compile(r"\bn\s?°", re.IGNORECASE)
_SIZE: Final = re.compile(r"[#x]?\d+(?:mm|cm|deg)?")
_ROMAN: Final = {"1": "i", "2": "ii", "3": "iii", "4": "iv"}


def plain(text: str) -> str:
    """Return a name without case, punctuation, signs and surplus blanks."""
    said = text
    while _ENTITY.search(said) and (once := html.unescape(said)) != said:
        said = once
    said = _NUMBER.sub("no ", said)
    said = _DOTTED.sub(r"\1", _SIGN.sub(" ", said))
    return " ".join(re.sub(r"[^\w\s]", " ", folded(said).replace("&", " and ")).split())


def maker(text: str) -> str:
    """Return a maker's name without its legal form."""
    words = [word for word in plain(text).split() if word not in _LEGAL]
    return " ".join(words) or plain(text)


def is_beside_maker(word: str) -> bool:
    """Return whether a word beside a maker's name makes it no other maker's."""
    return word in _BESIDE or word in _LEGAL


def forms(said: str) -> tuple[str, ...]:
    """Return a plain name as it is, with the collar in English, and with Roman numerals."""
    english = said
    for pattern, words in _COLLARS:
        english = re.sub(rf"\b{pattern}\b", words, english)
    roman = " ".join(_ROMAN.get(word, word) for word in english.split())
    return tuple(dict.fromkeys((said, english, roman)))


def written(form: str) -> list[str]:
    """Return a plain name as it is written in the languages that its collar is known in."""
    found = [form]
    for english, others in _COLLAR_WORDS.items():
        if form.endswith(f" {english}"):
            found += [form.replace(english, other) for other in others]
    return found


def is_harmless(word: str) -> bool:
    """Return whether a word beside a product's name leaves it the same product."""
    return word in _HARMLESS or _SIZE.fullmatch(word) is not None
