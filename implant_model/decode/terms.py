"""DICOM's defined terms of the attributes that the tables show; any other value is null there.

Free text in a coded attribute may name a patient, so only these words leave the decoder. Modality:
PS3.3 C.7.3.1.1.1, with the retired terms. Body part: PS3.16 table L-1, and words for limbs that
devices write. View: PS3.3 C.8.1.1 and
C.8.11.5.
"""

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
