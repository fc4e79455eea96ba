"""Words of European languages for sides, joints and components, and how a cell is cut into words.

Full stops, case, accents and punctuation make no difference: `Re.`, `RE` and `re` are one word,
and so are `Hüfte`, `Huefte` and `hufte`.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

NO_SIDE, LEFT, RIGHT, BOTH = range(4)
"""Codes of sides; 0 where it is not known."""

# fmt: off
_LEFT: Final = """
    left lt lft lhs links linke linker linkes linken lks lnks li gauche gche izquierda izquierdo izq
    izqda izqdo izda izdo iz esquerda esquerdo esq sinistra sinistro sin sx sinister esquerra
    esquerre ezkerra vanster vaenster vanstra venstre ven vasen vasemman vas lewa lewy lewe
    lewostronna leva levy leve levo lava lavy lijeva lijevo lijevi stanga stg bal kaire kreisa vasak
    vinstri sol левая левый левое слева αριστερα αριστερο
"""
_RIGHT: Final = """
    right rt rgt rhs rechts rechte rechter rechtes rechten re droite droit drt dte derecha derecho
    der dcha dcho dch direita direito dta destra destro dx dex dexter dextra dreta eskuina hoger
    hoeger hogra hoegra hojre hoejre hoyre hoeyre oikea oikean oik prawa prawy prawe prawostronna
    prava pravy prave desna desno desni dreapta jobb desine laba parem haegri sag правая правый
    правое справа δεξια δεξιο
"""
_BOTH: Final = """
    both bilateral bilat bil bilateraal bilaterale bilateralt bilateralna bilaterally beidseitig
    beidseits beiderseits beidseitige beids beide bds begge bada bagge molemmat obie obustronna
    obustronnie oboustranna ambos ambas ambo entrambi entrambe bilateraux dubbelzijdig beiderzijds
    dobbeltsidig dubbelsidig rl lr
"""
# fmt: on
SIDES: Final[Mapping[str, int]] = {
    **dict.fromkeys(_LEFT.split(), LEFT),
    **dict.fromkeys(_RIGHT.split(), RIGHT),
    **dict.fromkeys(_BOTH.split(), BOTH),
}
"""Words of one meaning, whatever their language; single letters are in `PAIRS`."""
PAIRS: Final = (
    ("l", "r", "left and right"),
    ("i", "d", "izquierda and derecha"),
    ("s", "d", "sinister and dexter"),
    ("g", "d", "gauche and droite"),
    ("e", "d", "esquerda and direita"),
    ("v", "h", "vänster and höger, or venstre and høyre"),
    ("v", "o", "vasen and oikea"),
    ("l", "p", "lewa and prawa"),
    ("l", "d", "lijevo and desno"),
    ("b", "j", "bal and jobb"),
    ("k", "l", "kreisā and labā"),
)
"""Letters for left and right in one language, and its words: a column has both of a pair."""
JOINERS: Final = frozenset(["and", "und", "et", "y", "e", "och", "og", "en", "plus"])
SIDE_FILLERS: Final = frozenset(
    ["side", "seite", "cote", "lado", "lato", "sida", "kant", "zijde", "strona", "joint"]
)
# fmt: off
MISSING: Final = frozenset((
    "", "na", "n/a", "n a", "nan", "null", "none", "unknown", "unk", "u", "nk", "nd", "ns", "ka",
    "unbekannt", "keine angabe", "inconnu", "desconocido", "desconocida", "desconhecido",
    "sconosciuto", "onbekend", "okand", "ukjent", "ukendt", "tuntematon", "nieznana", "not known",
    "not recorded", "not stated", "not applicable",
))
_JOINTS: Final[Mapping[str, str]] = {
    "hip": """
        hip hips tha thr thp pth ptc htep pelvis hufte huefte huft hueft hanche cadera anca quadril
        heup hoft hoeft hofte hoefte hofteled hoefteled hoftled lonkka lonkan lonkkanivel biodro
        biodra biodrowy kycel kycle kycelni kyclni bedro bedra kuk kolk sold csipo klubas gurna
        kalca mjodm coxa coxofemoral maluc puus ισχιο бедро тазобедренный
    """,
    "knee": """
        knee knees tka tkr tkp uka ukr ukp ptg ptr ktep patella rotula rotule knie kniee genou
        rodilla joelho ginocchio kna knae knaled knaeled kne kneled polvi polven polvinivel kolano
        kolana kolanowy koleno kolena koljeno terd kelio kelis celis celgala polv diz genu
        genunchi genoll belaun γονατο колено коленный hne
    """,
    "shoulder": """
        shoulder shoulders tsa tsr rsa rtsa schulter schultern epaule hombro ombro spalla schouder
        skulder skuldra axel axelled olkapaa olka olkanivel bark barku barkowy rameno ramena rame
        vall umar petys plecs umar olg omuz espatlla sorbalda ωμος плечо плечевой
    """,
    "ankle": """
        ankle ankles taa tar tap osg sprunggelenk cheville tobillo tornozelo caviglia enkel fotled
        ankel ankelled nilkka nilkan skokowy hlezno kotnik boka glezna turmell knochel knoechel
    """,
    "elbow": """
        elbow elbows tea ter ellbogen ellenbogen coude codo cotovelo gomito elleboog armbage albue
        kyynarpaa kyynarnivel lokiec lokciowy loket lakat konyok alkune elkonis dirsek olnbogi colze
    """,
    "wrist": """
        wrist wrists twa handgelenk poignet muneca punho polso pols handled handleden ranne
        nadgarstek zapesti csuklo
    """,
    "finger": "finger fingers thumb mcp pip cmc daumen doigt pouce vinger duim",
    "toe": "toe toes mtp hallux zehe orteil teen varvas",
    "spine": "spine wirbelsaule wirbelsaeule rachis columna",
    "jaw": "jaw tmj kiefergelenk",
}
# fmt: on
JOINTS: Final[Mapping[str, str]] = {
    word: joint for joint, words in _JOINTS.items() for word in words.split()
} | {"great toe": "toe"}
"""Word of a joint > the joint, as catalogues write it."""
JOINT_STEMS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("huft", "hueft", "heup", "hoft", "hoeft", "lonkka", "biodr", "kycel"), "hip"),
    **dict.fromkeys(("knieg", "kniet", "kniep", "kniee", "kneall", "knaall", "polvi"), "knee"),
    **dict.fromkeys(("kolan", "kneprot", "knaprot"), "knee"),
    **dict.fromkeys(("schulter", "schouder", "skulder"), "shoulder"),
    **dict.fromkeys(("sprunggelenk", "enkelg"), "ankle"),
    **dict.fromkeys(("ellbogen", "ellenbogen", "elleboog"), "elbow"),
}
"""Beginnings of compound words, such as `Hüftgelenkersatz` and `knieprothese`."""
COMPONENTS: Final[Mapping[str, str]] = {
    "stem": "stem schaft femurschaft huftschaft hueftschaft tige vastago stelo steel stam trzpien",
    "cup": (
        "cup pfanne huftpfanne hueftpfanne acetabular acetabulum acetabulaire cotyle cupule cotilo "
        "copa cotyla kom panewka kuppi skal schale shell"
    ),
    "head": "head kopf huftkopf hueftkopf femurkopf tete cabeza testa testina kop hode caput glowa",
    "liner": "liner inlay insert einsatz inserto insats polyethylen polyethylene wkladka onlay",
    "femoral": "femoral femur femurkomponente femoralkomponente femorale femoraal femurkomponent",
    "tibial": "tibial tibia tibiakomponente tibialkomponente tray baseplate plateau tibiaal",
    "patella": "patella patellar patellakomponente rotula rotule",
    "glenoid": "glenoid glenoidal glenosphere glenosphare glene",
    "humeral": "humeral humerus humerusschaft humeralkomponente",
    "cement": "cement zement ciment cemento",
    "screw": "screw screws schraube schrauben vis tornillo vite",
    "neck": "neck hals hals adapter konus",
}
"""Kind of component > words for it."""
_KINDS: Final = {word: kind for kind, words in COMPONENTS.items() for word in words.split()}
_LETTERS: Final = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "ı": "i"}
)


def bare(text: str) -> str:
    """Return a text without case, accents and punctuation, single blanks between its words.

    Plus, ampersand and slash stay: they join words.
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    plain = plain.translate(_LETTERS).replace(".", "")
    return " ".join(re.sub(r"[^\w+&/]|_", " ", plain).split())


def side_of(text: str) -> int:
    """Return the side that a text of one or more words means; `NO_SIDE` where it is not sure.

    Single letters mean nothing by themselves, but for `L` and `R` beside other words.
    """
    said = bare(text)
    if said in SIDES:
        return SIDES[said]
    words = [word for word in re.split(r"[\s+&/]+", said) if word and word not in JOINERS]
    sides = {_LONE.get(word, SIDES.get(word, NO_SIDE)) for word in words if not _is_filler(word)}
    if len(words) < 2 or NO_SIDE in sides or not sides:
        return NO_SIDE
    return sides.pop() if len(sides) == 1 else BOTH


_LONE: Final = {"l": LEFT, "r": RIGHT}


def _is_filler(word: str) -> bool:
    return word in SIDE_FILLERS or joint_of(word) is not None


def joint_of(text: str) -> str | None:
    """Return the joint that a text means, with other words around it or not; None if not sure."""
    said = bare(text)
    if said in JOINTS:
        return JOINTS[said]
    words = [word for word in re.split(r"[\s+&/]+", said) if len(word) > 3 or word in _SHORT]
    found = {JOINTS.get(word) or _compound(word) for word in words} - {None}
    return found.pop() if len(found) == 1 else None


_SHORT: Final = frozenset(("hip", "tha", "thr", "tka", "tkr", "uka", "ukr", "tsa", "kne"))
"""Words of three letters that name a joint among other words, too."""


def _compound(word: str) -> str | None:
    return next((joint for stem, joint in JOINT_STEMS.items() if word.startswith(stem)), None)


def kind_of(text: str) -> str:
    """Return the kind of component that a text names; the text itself where it is no known word."""
    words = [word for word in re.split(r"\W+", bare(text)) if word in _KINDS]
    kinds = {_KINDS[word] for word in words}
    if len(kinds) > 1:
        kinds.discard("femoral")  # 'femoral stem', 'femoral head'
    return kinds.pop() if len(kinds) == 1 else bare(text)
