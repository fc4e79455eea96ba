"""The table of `benchmarks.speed`: medians of ratios, and how far the single ratios lie apart."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from statistics import median
from typing import Final

from benchmarks.machine import machine
from benchmarks.rivals.speed_archives import KINDS
from benchmarks.rivals.speed_start import START

DAFT: Final = "daft"
RIVALS: Final = ("loader", "tuned", "ray", "limit", DAFT)
"""In the order of the table's columns; for all but Daft there is a least ratio."""
CONTENDERS: Final = ("job", "bfloat16", *RIVALS)
START_MOST_S: Final = {"cold": 20, "warm": 10}
HEAD: Final = (
    "| archive | job, images/s | to the DataLoader loop | to the tuned loop | to plain Ray Data |"
    " to the limit | to Daft | decode, CPU ms | model, CPU ms |",
    "|---|---:|---|---|---|---|---|---:|---:|",
)
Rates = Mapping[str, Sequence[float]]


def report(measured: Mapping[str, Rates]) -> str:
    """Return the results as Markdown."""
    lines = [
        "# Speed of the job",
        "",
        f"`make bench`, {datetime.now(UTC):%Y-%m-%d}. Images a second as the slope between two "
        "numbers of archives; the ratio of the job to a DataLoader loop, to one that was tuned, to "
        "plain Ray Data, to the limit (cores over CPU seconds of the job's own decode and model on "
        "an image) and, for pictures, to Daft: median of the repeats with the least and the "
        "greatest, and what was set as the least.",
        "",
        f"Machine: {machine()}.",
        "",
        *HEAD,
        *(_line(kind, measured[kind]) for kind in KINDS if kind in measured),
        "",
        *_bfloat16(measured),
        *_start(measured.get(START, {})),
        *_sizing(measured),
    ]
    return "\n".join(lines)


def _sizing(measured: Mapping[str, Rates]) -> list[str]:
    """What the CPU times mean for a cluster: linear in cores, since archives share nothing."""
    wanted = ("job", "limit", "decode_ms")
    timed = {
        kind: rates
        for kind in KINDS
        if all((rates := measured.get(kind, {})).get(name) for name in wanted)
    }
    if not timed:
        return []
    lines = [
        "## Sizing",
        "",
        "Radiographs an hour of one core of this machine that decodes and classifies, by the job's "
        "rate above; and, where GPUs classify, the cores for a GPU that takes 1,000 images a "
        "second, by all that the job's cores do beside the networks (pictures of a larger model "
        "are larger, too): multiply by what `python -m benchmarks.gpu.run` states of yours "
        "(`gpu.md` has an H100's). The cost of a million radiographs is a million over the first "
        "figure, in hours of a core at your price.",
        "",
        "| archive | an hour and core | cores for 1,000 images/s |",
        "|---|---:|---:|",
    ]
    for kind, rates in timed.items():
        decode_ms, model_ms = median(rates["decode_ms"]), median(rates["model_ms"])
        job_ms = (decode_ms + model_ms) / median(ratios(rates, "limit"))
        lines.append(f"| {KINDS[kind].title} | {3.6e6 / job_ms:,.0f} | {job_ms - model_ms:,.0f} |")
    return [*lines, ""]


def _bfloat16(measured: Mapping[str, Rates]) -> list[str]:
    """The job in bfloat16 beside the same rivals; its limit has the model's time in bfloat16."""
    timed = {kind: in_bfloat16(measured[kind]) for kind in KINDS if kind in measured}
    rows = [_line(kind, rates) for kind, rates in timed.items() if rates.get("job")]
    if not rows:
        return []
    return [
        "With `--precision bfloat16`, of this job alone:",
        "",
        *HEAD,
        *rows,
        "",
    ]


def in_bfloat16(rates: Rates) -> Rates:
    """Return the same measurements with the job in bfloat16 as the job."""
    names = ("limit", "decode_ms", "model_ms", "bfloat16_ms")
    turns = zip(*(rates.get(name, ()) for name in names), strict=False)
    limits = [
        limit * (decode_ms + model_ms) / (decode_ms + bfloat16_ms)
        for limit, decode_ms, model_ms, bfloat16_ms in turns
    ]
    model_ms = rates.get("bfloat16_ms", ())
    return {**rates, "job": rates.get("bfloat16", ()), "limit": limits, "model_ms": model_ms}


def ratios(rates: Rates, rival: str) -> list[float]:
    """Return the job's rate over a rival's, turn by turn."""
    return [ours / theirs for ours, theirs in zip(rates["job"], rates[rival], strict=False)]


def _line(kind: str, rates: Rates) -> str:
    cells = [KINDS[kind].title, f"{median(rates['job']):.0f}" if rates.get("job") else ""]
    for rival, least in zip_longest(RIVALS, KINDS[kind].least):
        cells.append(_ratio(ratios(rates, rival), least) if rates.get(rival) else "")
    for part in ("decode_ms", "model_ms"):
        cells.append(f"{median(rates[part]):.1f}" if rates.get(part) else "")
    return f"| {' | '.join(cells)} |"


def _ratio(values: Sequence[float], least: float | None) -> str:
    found = f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    if least is None:
        return found
    return f"{found}; {least:g} {'met' if median(values) >= least else 'NOT met'}"


def _start(seconds: Rates) -> list[str]:
    if not seconds:
        return []
    rows = [
        f"| {name} | {median(seconds[name]):.0f} s ({min(seconds[name]):.0f} to "
        f"{max(seconds[name]):.0f}) | {most} s |"
        for name, most in START_MOST_S.items()
    ]
    return ["| start to first published unit | seconds | at most |", "|---|---|---|", *rows, ""]
