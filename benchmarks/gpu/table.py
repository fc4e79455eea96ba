"""The figures of `benchmarks.gpu.run` as Markdown."""

from statistics import median
from typing import Any, Final

LEAST: Final = 0.90
"""Share of the networks' own rate that the actor is to reach."""
_HEAD: Final = """# A GPU

How fast the job classifies on a GPU, beside its networks alone on the same GPU, and how many cores
keep it busy. `python -m benchmarks.gpu.run`; phantoms and noise, no evidence about patients.
"""


def report(measured: dict[str, Any]) -> str:
    """Return the tables.

    Args:
        measured: `machine`; `tensors`, by model and precision; `job`, by kind, precision and cores.
    """
    parts = [_HEAD, f"Machine: {measured['machine']}.\n"]
    if measured["tensors"]:
        parts.append(_tensors(measured["tensors"]))
    if measured["job"]:
        parts.append(_job(measured["job"], measured["tensors"]))
    return "\n".join(parts)


def shares(each: dict[str, list[float]], part: str) -> list[float]:
    """Of the networks alone, turn by turn."""
    return [ours / alone for ours, alone in zip(each[part], each["alone"], strict=True)]


def _tensors(measured: dict[str, dict[str, Any]]) -> str:
    lines = [
        "## Tensors ready\n",
        f"Images a second, and the share of the networks alone (wanted: {LEAST:.2f} of the actor). "
        "The stage is the same actor under Ray Data, whose one driver hands on 40 to 60 blocks of "
        "256 images a second: a GPU that is faster than that waits for it. Of the full-size model "
        "a run of the stage is ten to thirty blocks, so that its share is right to a tenth.",
        "",
        "| model, precision | batch | networks alone | actor | its share | stage | its share |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, each in measured.items():
        alone = median(each["alone"])
        cells = [name, str(each["batch_size"]), f"{alone:,.0f}"]
        for part in ("actor", "stage"):
            found = shares(each, part)
            spread = f"{median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
            cells += [f"{median(each[part]):,.0f}", spread]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _job(measured: dict[str, dict[str, Any]], tensors: dict[str, dict[str, Any]]) -> str:
    lines = [
        "## The whole job, full-size model\n",
        "Cores that fill the GPU: the networks alone over the job's rate for each core, where the "
        "GPU had time to spare. It is busy longer than its share of images where blocks are not "
        "full, as those of a short run on many cores.",
        "",
        "| archives | precision | cores | images/s | of the networks alone | GPU busy | fill it |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in measured.values():
        alone = median(tensors[f"full-size, {each['precision']}"]["alone"])
        share = each["images_s"] / alone
        fill = f"{each['cores'] / share:.0f}" if share < LEAST else "full"
        lines.append(
            f"| {each['kind']} | {each['precision']} | {each['cores']} | {each['images_s']:,.0f} | "
            f"{share:.2f} | {each['busy']:.2f} | {fill} |"
        )
    return "\n".join([*lines, ""])
