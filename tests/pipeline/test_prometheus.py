from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from implant_model.errors import Outcome
from implant_model.storage.uri import normalise
from jobs.pipeline.drift import Shift
from jobs.pipeline.health import Health
from jobs.pipeline.prometheus import render_metrics, write_metrics

MODEL = 'odd "name" \\ @0123456789ab'


def health() -> Health:
    return Health(
        run="r",
        model=MODEL,
        software_version="0.1.0",
        finished_at="2026-01-31T06:00:00Z",
        seconds=12.5,
        archives={"complete": 2, "salvaged": 1},
        outcomes={"identified": 7, "rejected": 3},
        reasons={"empty": 3},
        implants={"stem-a": 7, "stem-b": 5},
        identified={"stem-a": 7},
        novelty={"30": 7},
        compared_runs=6,
        shifts={"novelty": Shift(0.31, 0.1)},
        warnings=("The novelty ...",),
    )


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus' own parser reads."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            assert sample.labels.pop("model") == MODEL
            found[sample.name, tuple(sample.labels.items())] = sample.value
    return found


def test_prometheus_reads_every_figure() -> None:
    read = samples(render_metrics(health(), MODEL, 3, 1769839200.25))
    assert read["implant_run_timestamp_seconds", ()] == 1769839200.25
    assert read["implant_run_exit_code", ()] == 3
    assert read["implant_run_seconds", ()] == 12.5
    assert read["implant_run_members", (("outcome", "identified"),)] == 7
    assert read["implant_run_members", (("outcome", "ambiguous"),)] == 0
    assert read["implant_run_reasons", (("reason", "empty"),)] == 3
    assert read["implant_run_archives", (("status", "salvaged"),)] == 1
    assert read["implant_run_implants", (("implant", "stem-a"),)] == 7
    assert read["implant_run_drift", (("of", "novelty"),)] == 0.31
    assert read["implant_run_warnings", ()] == 1


def test_night_with_nothing_new_shows_that_it_was_there(tmp_path: Path) -> None:
    file = tmp_path / "implant.prom"
    write_metrics(normalise(str(file)), health(), MODEL, 3)
    write_metrics(normalise(str(file)), None, MODEL, 0)
    read = samples(file.read_text())
    assert read["implant_run_exit_code", ()] == 0
    assert read["implant_run_timestamp_seconds", ()] > 1.7e9
    assert sum(v for (name, _), v in read.items() if name == "implant_run_members") == 0
    assert len(read) == 3 + len(Outcome)
    assert list(tmp_path.iterdir()) == [file]
