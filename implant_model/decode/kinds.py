"""Which DICOM objects are plain radiographs, and the defined terms that the tables may show.

PS3.4 annex B (SOP classes), PS3.3 C.7.3.1.1.1 (modalities), PS3.3 C.8.6.1 (conversion type) and
PS3.16 annex L (body parts). The rule, in this order:

1. SOP classes and modalities of objects without a picture of their own (reports, presentation
   states, waveforms, RT, segmentations, videos, ...) are `non_image_object`.
2. CR, DX and RG are the plain radiographs; `DR` and `XR`, which the standard does not know and
   devices write, are taken for them. Fluoroscopy (RF, XA), mammography, dental and all other
   modalities are `not_a_radiograph`.
3. An object that does not name a modality of its own (none, `OT`, `HC`, or an unknown word) is a
   radiograph if its SOP class is one of those of CR and DX; a secondary capture that states `OT`
   or the like must carry something that only a radiograph carries (View Position, Imager Pixel
   Spacing, or Conversion Type `DF`, digitised film); one without any modality states no more than a
   PNG does and is taken as that is, unless it is a scanned document or a drawing.
"""

from implant_model.errors import Reason

# fmt: off
MODALITIES = frozenset((
    "ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CFM", "CR", "CT", "CTPROTOCOL", "DMS", "DG",
    "DOC", "DX", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FID", "GM", "HC", "HD", "IO", "IOL",
    "IVOCT", "IVUS", "KER", "KO", "LEN", "LS", "MG", "MR", "M3D", "NM", "OAM", "OCT", "OP", "OPM",
    "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG",
    "RESP", "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD",
    "RTSEGANN", "RTSTRUCT", "RWV", "SEG", "SM", "SMR", "SR", "SRF", "STAIN", "TEXTUREMAP", "TG",
    "US", "VA", "XA", "XAPROTOCOL", "XC", "AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS",
    "EC", "FA", "FS", "LP", "MA", "MS", "OPR", "ST", "VF",
))
# fmt: on
# fmt: off
VIEWS = frozenset((
    "AP", "PA", "LL", "RL", "RLD", "LLD", "RLO", "LLO",
))
# fmt: on
# fmt: off
BODY_PARTS = frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "ADRENAL", "ANKLE", "ANTCARDIACV", "ANTTIBIALA", "ANUS", "AORTA",
    "AORTICARCH", "APPENDIX", "ARM", "ASCAORTA", "ASCENDINGCOLON", "AXILLA", "AXILLARYA", "BACK",
    "BILEDUCT", "BLADDER", "BODYBACK", "BRACHIALA", "BRAIN", "BREAST", "BRONCHUS", "BUTTOCK",
    "CALCANEUS", "CALF", "CAROTID", "CEPHALICV", "CEREBELLUM", "CEREBHEMISPHERE", "CHEST",
    "CHESTABDOMEN", "CHESTABDPELVIS", "CHOROIDPLEXUS", "CIRCLEOFWILLIS", "CLAVICLE", "COCCYX",
    "COLON", "COMMONBILEDUCT", "CORNEA", "CORONARYARTERY", "CSPINE", "CTSPINE", "DESCAORTA",
    "DESCENDINGCOLON", "DUODENUM", "EAR", "ELBOW", "ENTIREBODY", "ENDOARTERIAL", "ESOPHAGUS",
    "EXTREMITY", "EYE", "EYELID", "FACE", "FEMORALA", "FEMUR", "FINGER", "FOOT", "FOREARM",
    "GALLBLADDER", "GROIN", "HAND", "HEAD", "HEADNECK", "HEART", "HIP", "HUMERUS", "IAC", "ILEUM",
    "ILIACA", "ILIUM", "JAW", "JEJUNUM", "KIDNEY", "KNEE", "LARYNX", "LARGEINTESTINE", "LEG",
    "LIVER", "LSPINE", "LSSPINE", "LUNG", "MANDIBLE", "MAXILLA", "MEDIASTINUM", "METACARPUS",
    "METATARSUS", "MOUTH", "NASALBONE", "NECK", "NECKCHEST", "NECKCHESTABDOMEN",
    "NECKCHESTABDPELV", "NOSE", "OPTICCANAL", "ORBIT", "OVARY", "PANCREAS", "PATELLA", "PELVIS",
    "PELVISLOWEXTREMT", "PENIS", "PHANTOM", "PHARYNX", "PROSTATE", "RADIUS", "RADIUSULNA",
    "RECTUM", "RIB", "SCALP", "SCAPULA", "SCLERA", "SCROTUM", "SHOULDER", "SIJOINT", "SINUS",
    "SKULL", "SMALLINTESTINE", "SPINE", "SPLEEN", "SSPINE", "STERNUM", "STOMACH", "TARSUS",
    "TESTIS", "THIGH", "THORAX", "THUMB", "THYMUS", "THYROID", "TIBIA", "TIBIAFIBULA", "TLSPINE",
    "TMJ", "TOE", "TONGUE", "TRACHEA", "TSPINE", "ULNA", "UPRARM", "URETER", "URETHRA", "UTERUS",
    "VAGINA", "WHOLEBODY", "WRIST", "ZYGOMA", "LOWEREXTREMITY", "UPPEREXTREMITY", "LOWERLEG",
    "UPPERARM", "LOWERLIMB", "UPPERLIMB",
))
# fmt: on


STORAGE = "1.2.840.10008.5.1.4.1.1."
CR_OR_DX = frozenset({STORAGE + "1", STORAGE + "1.1", STORAGE + "1.1.1"})
SECONDARY_CAPTURE = frozenset({STORAGE + "7"} | {f"{STORAGE}7.{i}" for i in range(1, 5)})
FLUOROSCOPY = frozenset({STORAGE + "12.1", STORAGE + "12.2"})
VIDEO_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 109)) | {
    f"1.2.840.10008.1.2.4.{number}.1" for number in range(100, 107)
}
RT_IMAGE = STORAGE + "481.1"
VIDEO = frozenset({STORAGE + "77.1.1.1", STORAGE + "77.1.2.1", STORAGE + "77.1.4.1"})
# Families of objects without a picture of their own (PS3.4 table B.5-1, and non-patient objects).
NON_IMAGE_FAMILIES = tuple(
    STORAGE + family
    for family in (
        *("9.", "11.", "30", "34.", "66", "67", "68.", "78.", "79.", "80.", "88.", "90.", "104."),
        *("131", "200.", "201.", "481.", "4.2", "1.1.4.2"),
    )
) + ("1.2.840.10008.1.3.10", "1.2.840.10008.5.1.4.38.", "1.2.840.10008.5.1.4.39.",
     "1.2.840.10008.5.1.4.43.", "1.2.840.10008.5.1.4.44.", "1.2.840.10008.5.1.4.45.",
     "1.2.840.10008.5.1.4.34.")  # fmt: skip
# fmt: off
NON_IMAGE_MODALITIES = frozenset((
    "SR", "PR", "KO", "DOC", "PLAN", "RTPLAN", "RTSTRUCT", "RTDOSE", "RTRECORD", "RTINTENT",
    "RTRAD", "RTSEGANN", "SEG", "REG", "FID", "RWV", "ECG", "HD", "EPS", "AU", "RESP", "SMR",
    "ASMT", "M3D", "STAIN", "TEXTUREMAP", "ANN", "EEG", "EMG", "EOG", "OSS", "OPV", "LEN",
))
# fmt: on
RADIOGRAPHS = frozenset({"CR", "DX", "RG"})
RADIOGRAPHS_MISNAMED = frozenset({"DR", "XR"})
UNSPECIFIC = frozenset({"", "OT", "HC"})
PAPER = frozenset({"SD", "DRW"})  # scanned document, drawing


def refusal(
    sop_class: str, modality: str, conversion: str, *, radiograph_marks: bool
) -> Reason | None:
    """Return why an object is not seen by the classifier.

    Args:
        sop_class: SOP Class UID; empty where the file names none.
        modality: Modality as written, upper case; empty where the file names none.
        conversion: Conversion Type as written, upper case.
        radiograph_marks: View Position or Imager Pixel Spacing has a value.

    Returns:
        non_image_object, not_a_radiograph, or None for a plain radiograph.
    """
    if sop_class in VIDEO or modality in NON_IMAGE_MODALITIES:
        return Reason.NON_IMAGE_OBJECT
    if sop_class.startswith(NON_IMAGE_FAMILIES) and sop_class != RT_IMAGE:
        return Reason.NON_IMAGE_OBJECT
    if modality in RADIOGRAPHS or modality in RADIOGRAPHS_MISNAMED:
        radiograph = _may_hold_radiograph(sop_class) and conversion not in PAPER
    elif modality in MODALITIES and modality not in UNSPECIFIC:
        radiograph = False
    elif sop_class in CR_OR_DX:
        radiograph = True
    elif sop_class in SECONDARY_CAPTURE or not sop_class:
        marked = radiograph_marks or conversion == "DF"
        radiograph = (marked or not modality) and conversion not in PAPER
    else:
        radiograph = False
    return None if radiograph else Reason.NOT_A_RADIOGRAPH


def _may_hold_radiograph(sop_class: str) -> bool:
    """Whether an object of this class may be what a radiograph's modality states that it is."""
    known = sop_class in CR_OR_DX | SECONDARY_CAPTURE | FLUOROSCOPY
    return known or not sop_class.startswith(STORAGE)


def defined_modality(value: str) -> str | None:
    """Return the value if it is a defined term of Modality (0008,0060), else None."""
    return value if value in MODALITIES else None


def defined_body_part(value: str) -> str | None:
    """Return the value if it is a defined term of Body Part Examined (0018,0015), else None."""
    return value if value in BODY_PARTS else None


def defined_view(value: str) -> str | None:
    """Return the value if it is a defined term of View Position (0018,5101), else None."""
    return value if value in VIEWS else None


def defined_laterality(value: str) -> str | None:
    """Return the value if it is an enumerated value of a laterality attribute, else None."""
    return value if value in ("R", "L", "B", "U") else None
