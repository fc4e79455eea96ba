"""A run's figures in Prometheus' text format, in a file for node-exporter's textfile collector.

Ray's own metrics are no way out of a batch: they live in the process that set them and end with it,
mostly between two scrapes. A file stays, and the age of `implant_run_timestamp_seconds` tells of a
night that did not come to its end.
"""

import time
from collections.abc import Iterator, Mapping

from implant_model import storage
from implant_model.errors import Outcome
from jobs.pipeline.health import Health


def write_metrics(uri: str, health: Health | None, model: str, code: int) -> None:
    """Write the file whole, in the place of the last run's.

    Args:
        uri: Normalised URI; the collector reads files that end with `.prom`.
        health: Of the run; None where there was nothing to do.
        model: The package's `name@hash`.
        code: The run's exit code.

    Raises:
        StorageError: It cannot be written.
    """
    storage.overwrite(uri, render_metrics(health, model, code, time.time()).encode())


def render_metrics(health: Health | None, model: str, code: int, now_s: float) -> str:
    """Return the file's text; labels are the model, closed sets and the catalogue's names alone."""
    outcomes = health.outcomes if health else {}
    counted = {str(outcome): outcomes.get(outcome, 0) for outcome in Outcome}
    gauges: list[tuple[str, str, str, Mapping[str, float]]] = [
        ("timestamp_seconds", "End of the last run.", "", {"": now_s}),
        ("exit_code", "Exit code of the last run.", "", {"": code}),
        ("seconds", "Length of the last run.", "", {"": health.seconds if health else 0}),
        ("members", "Members of the last run by outcome.", "outcome", counted),
    ]
    if health is not None:
        psi = {name: shift.psi for name, shift in health.shifts.items()}
        gauges += [
            ("reasons", "Members rejected or ignored by reason.", "reason", health.reasons),
            ("archives", "Archives by status.", "status", health.archives),
            ("implants", "Members identified, by implant.", "implant", health.identified),
            ("drift", "Population stability index to the last weeks.", "of", psi),
            ("warnings", "Figures past a threshold.", "", {"": len(health.warnings)}),
        ]
    return "".join(f"{line}\n" for gauge in gauges for line in _lines(*gauge, model))


def _lines(
    name: str, text: str, label: str, values: Mapping[str, float], model: str
) -> Iterator[str]:
    if values:
        yield f"# HELP implant_run_{name} {text}"
        yield f"# TYPE implant_run_{name} gauge"
    for word, value in values.items():
        pairs = {"model": model, **({label: word} if label else {})}
        written = ",".join(f'{key}="{_escape(said)}"' for key, said in pairs.items())
        yield f"implant_run_{name}{{{written}}} {value:.15g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
