"""model-card.json: a package's facts as CHAI's Applied Model Card has them, and CLAIM's items.

The Coalition for Health AI publishes its card as an XML schema (v0.2); here its elements are JSON,
of the same names and order. Each item of CLAIM 2024 (Tejani et al., Radiology: Artificial
Intelligence, 10.1148/ryai.240300) points to the line that answers it, or states that nothing does.
Numbers and subjects are those of RSNA's page (github.com/RSNA/CLAIM, docs/checklist.md, read on
2026-11-29); the short titles are ours, since its text may not be changed.
All is made of `package.json`; what training did not measure is 'Not reported.'
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from implant_model.package.load import ModelPackage

FILE: Final = "model-card.json"
NOTHING: Final = "Not reported."
_METRIC = {
    "MetricGoal": str,
    "Results": list,
    "Interpretation": str,
    "TestType": str,
    "TestingDataDescription": str,
    "ValidationProcessAndJustification": str,
}
SCHEMA: Final[Mapping[str, Any]] = {
    "BasicInfo": {"ModelName": str, "ModelDeveloper": str, "DeveloperContact": str},
    "ReleaseInfo": {
        "ReleaseStage": str,
        "ReleaseDate": str,
        "ReleaseVersion": str,
        "GlobalAvailability": str,
    },
    "ModelSummary": {"Summary": str, "Keywords": list},
    "UsesAndDirections": {
        "IntendedUseAndWorkflow": str,
        "PrimaryIntendedUsers": str,
        "HowToUse": str,
        "TargetedPatientPopulation": str,
        "CautionedOutOfScopeSettings": str,
    },
    "Warnings": {
        "KnownRisksAndLimitations": str,
        "KnownBiasesOrEthicalConsiderations": str,
        "ClinicalRiskLevel": str,
    },
    "TrustIngredients": {
        "AISystemFacts": {
            "OutcomesAndOutputs": str,
            "ModelType": str,
            "FoundationModels": str,
            "InputDataSource": str,
            "OutputAndInputDataTypes": str,
            "DevelopmentDataCharacterization": str,
            "BiasMitigationApproaches": str,
            "OngoingMaintenance": str,
        },
        "TransparencyInformation": {"FundingSource": str, "StakeholdersConsulted": str},
    },
    "KeyMetrics": {
        "UsefulnessUsabilityEfficacy": _METRIC,
        "FairnessEquity": _METRIC,
        "SafetyReliability": _METRIC,
    },
    "Resources": {"PeerReviewedPublications": str, "PatientConsentOrDisclosure": str},
    "Bibliography": str,
}
"""CHAI's required elements, and one optional one (FoundationModels)."""
SAFETY: Final = ("calibration_error", "coverage", "set_size", "flagged")
SENSITIVITY: Final = "sensitivity: "
_CARD, _PAGE = "MODEL_CARD.md", "package.json"
CLAIM: Final[Mapping[int, tuple[str, str]]] = {
    1: ("Identification as AI study, with its technology", f"{_CARD}, Training"),
    2: ("Abstract", f"{FILE}, ModelSummary"),
    3: ("Background and intended use", f"{FILE}, UsesAndDirections"),
    4: ("Aims and hypotheses", f"{FILE}, KeyMetrics, MetricGoal"),
    5: ("Prospective or retrospective", NOTHING),
    6: ("Goal of the study", f"{FILE}, UsesAndDirections"),
    7: ("Data sources", f"{_CARD}, Data"),
    8: ("Inclusion and exclusion", f"{_CARD}, Data"),
    9: ("Preprocessing", f"{_PAGE}, preprocessing"),
    10: ("Selection of subsets", f"{_CARD}, Data"),
    11: ("De-identification", NOTHING),
    12: ("Missing data", f"{_PAGE}, provenance, data, excluded"),
    13: ("Image acquisition", NOTHING),
    14: ("Definition of the reference standard", f"{_CARD}, Data"),
    15: ("Rationale of the reference standard", NOTHING),
    16: ("Source of annotations", f"{_CARD}, Data"),
    17: ("Annotation of the test set", NOTHING),
    18: ("Variability of annotations", NOTHING),
    19: ("Assignment to partitions", f"{_CARD}, Figures"),
    20: ("Level at which partitions are disjoint", f"{_CARD}, Data"),
    21: ("Sample size", f"{_CARD}, What it tells apart"),
    22: ("Model", f"{_PAGE}, networks"),
    23: ("Software", f"{_PAGE}, provenance, environment"),
    24: ("Initialisation of parameters", f"{_CARD}, Training"),
    25: ("Training", f"{_PAGE}, provenance, settings"),
    26: ("Selection of the final model", f"{_CARD}, Training and Limits"),
    27: ("Ensembling", f"{_PAGE}, networks"),
    28: ("Metrics", f"{_CARD}, Figures"),
    29: ("Uncertainty", f"{_CARD}, Figures, 95 % interval"),
    30: ("Robustness", f"{_CARD}, Control and Cues"),
    31: ("Explainability", "python -m jobs.explain"),
    32: ("Evaluation on internal data", f"{_CARD}, Figures"),
    33: ("Testing on external data", NOTHING),
    34: ("Registration of a trial", NOTHING),
    35: ("Numbers of patients or examinations", f"{_CARD}, Data"),
    36: ("Demographics", NOTHING),
    37: ("Performance", f"{_CARD}, Figures"),
    38: ("Precision of the performance", f"{_CARD}, Figures, 95 % interval"),
    39: ("Analysis of failures", f"{_CARD}, Figures, Sensitivity"),
    40: ("Limitations", f"{_CARD}, Limits"),
    41: ("Implications for practice", f"{FILE}, UsesAndDirections"),
    42: ("Access to the protocol", f"{_PAGE}, provenance, settings"),
    43: ("Availability of software, model and data", f"{_PAGE}, provenance"),
    44: ("Funding", NOTHING),
}
"""Items of CLAIM 2024 by number: what each asks for, and where it is answered."""


def write_applied_card(folder: Path, package: ModelPackage) -> None:
    """Write model-card.json beside a package, which does not list it: it changes no answer.

    Raises:
        ValueError: The card has not the elements of `SCHEMA`.
    """
    document = applied_card(package)
    check_card(document["AppliedModelCard"], SCHEMA)
    (folder / FILE).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


def applied_card(package: ModelPackage) -> dict[str, Any]:
    """Return the card and CLAIM's items of a package that `training.packaging` made."""
    provenance, metrics = package.manifest.provenance, package.manifest.metrics
    data, settings = _table(provenance, "data"), _table(provenance, "settings")
    notes = str(_table(settings, "card").get("notes") or NOTHING)
    names = ", ".join(implant.name for implant in package.catalogue)
    card = {
        "BasicInfo": {
            "ModelName": package.id,
            "ModelDeveloper": NOTHING,
            "DeveloperContact": NOTHING,
        },
        "ReleaseInfo": {
            "ReleaseStage": "Research",
            "ReleaseDate": str(provenance.get("made_at", NOTHING)),
            "ReleaseVersion": package.hash[:12],
            "GlobalAvailability": f"Data: {data.get('licence', NOTHING)}",
        },
        "ModelSummary": {
            "Summary": f"Names the implant on a plain radiograph, one of: {names}.",
            "Keywords": ["radiograph", "arthroplasty", "implant identification"],
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": "Registry audit and research. Not a medical device.",
            "PrimaryIntendedUsers": "Registries' analysts and researchers.",
            "HowToUse": "python -m jobs.classify INPUT --output URI --model URI",
            "TargetedPatientPopulation": f"Whoever carries one of: {names}.",
            "CautionedOutOfScopeSettings": "Diagnosis; identifying an implant before surgery.",
        },
        "Warnings": {
            "KnownRisksAndLimitations": " ".join([notes, *package.weaknesses]),
            "KnownBiasesOrEthicalConsiderations": "Age, sex and origin of patients: not reported.",
            "ClinicalRiskLevel": "Not for clinical use.",
        },
        "TrustIngredients": _facts(package, data, settings),
        "KeyMetrics": _metrics(metrics),
        "Resources": {
            "PeerReviewedPublications": NOTHING,
            "PatientConsentOrDisclosure": NOTHING,
        },
        "Bibliography": "",
    }
    items = {str(number): {"item": i, "where": where} for number, (i, where) in CLAIM.items()}
    return {"AppliedModelCard": card, "CLAIM 2024": items}


def _facts(
    package: ModelPackage, data: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    first = _table(package.manifest.provenance, "first_weights")
    size_px = package.preprocessing.size_px
    return {
        "AISystemFacts": {
            "OutcomesAndOutputs": "Calibrated probability of each implant, candidates, novelty.",
            "ModelType": ", ".join(spec.architecture for spec in package.networks),
            "FoundationModels": str(first.get("origin") or "None."),
            "InputDataSource": str(data.get("source", NOTHING)),
            "OutputAndInputDataTypes": f"A grey picture of {size_px} x {size_px} pixels; numbers.",
            "DevelopmentDataCharacterization": f"{data.get('images', 0)} images, "
            f"{data.get('excluded', 0)} left out.",
            "BiasMitigationApproaches": "Classes weighed by fit.class_balance "
            f"{_table(settings, 'fit').get('class_balance', NOTHING)}.",
            "OngoingMaintenance": NOTHING,
        },
        "TransparencyInformation": {"FundingSource": NOTHING, "StakeholdersConsulted": NOTHING},
    }


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    figures, measured_on = _table(metrics, "figures"), str(metrics.get("measured_on", NOTHING))

    def part(goal: str, names: list[str]) -> dict[str, Any]:
        return {
            "MetricGoal": goal,
            "Results": [{"Label": n, "ValueJson": figures[n]} for n in names if n in figures],
            "Interpretation": "Value with its 95 % interval (low, high) and count of images.",
            "TestType": "Internal",
            "TestingDataDescription": measured_on,
            "ValidationProcessAndJustification": measured_on,
        }

    by_class = [name for name in figures if name.startswith(SENSITIVITY)]
    others = [name for name in figures if name not in (*by_class, *SAFETY)]
    return {
        "UsefulnessUsabilityEfficacy": part("The right implant first.", others),
        "FairnessEquity": part("Each implant found alike; of patients nothing is known.", by_class),
        "SafetyReliability": part("Probabilities and candidates as promised.", [*SAFETY]),
    }


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def check_card(card: object, schema: Mapping[str, Any] = SCHEMA, where: str = "card") -> None:
    """Hold a card against a schema: the same elements in the same order, each of its type.

    Raises:
        ValueError: It has others; the message names the first place.
    """
    if not isinstance(card, dict) or list(card) != list(schema):
        found = list(card) if isinstance(card, dict) else type(card).__name__
        raise ValueError(f"{where} has {found}; {list(schema)} is expected.")
    for name, kind in schema.items():
        if isinstance(kind, Mapping):
            check_card(card[name], kind, f"{where}.{name}")
        elif not isinstance(card[name], kind):
            raise ValueError(f"{where}.{name} is {card[name]!r}; {kind.__name__} is expected.")
