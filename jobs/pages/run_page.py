"""The page of any output, by its tables and, where it is at hand, the package."""

from pathlib import Path
from typing import Final

from implant_model import storage
from implant_model.errors import UsageError
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.manifest import MANIFEST
from implant_model.storage.local_files import write_whole
from jobs.pages.page import render_run
from jobs.pages.run_facts import read_facts
from jobs.tables import delta
from jobs.tables.schema import ARCHIVES

PAGE: Final = "report.html"
SHIPPED: Final = Path(__file__).parents[2] / "models"


def write_page(output: str, model: str | None, folder: Path) -> Path:
    """Write the page of an output; return its file.

    Args:
        output: Normalised URI.
        model: URI of a package, or `name@hash`; None for the only model of the output.
        folder: Where to write.

    Raises:
        UsageError: There are no tables, or not of that model, or of several.
        PackageError: The package is missing or damaged.
        StorageError: The store does not answer.
    """
    package = None if model is None or "@" in model else load_package(model, weights=False)
    name = choose_model(output, model if package is None else package.id)
    package = package or shipped(name)
    page = render_run(
        read_facts(output, name),
        title="Implants named on radiographs",
        notes=() if package is None else [f"The model is weak. {w}" for w in package.weaknesses],
        novelty_threshold=None if package is None else package.novelty.threshold,
    )
    write_whole(folder / PAGE, page.encode())
    return folder / PAGE


def choose_model(output: str, name: str | None) -> str:
    """Return the model whose predictions the page is about.

    Raises:
        UsageError: The output has no tables, none of this model, or several and none was named.
    """
    table = delta.open_table(storage.join(output, ARCHIVES))
    if table is None:
        raise UsageError(f"{output} holds no tables; name the --output of classify.")
    models = sorted({file["partition.model"] for file in delta.active_files(table)})
    if name is None and len(models) == 1:
        return str(models[0])
    if not models:
        raise UsageError(
            f"{output} holds no archive that was finished: there are no predictions yet. The same "
            "jobs.classify command goes on."
        )
    if name is None or name not in models:
        raise UsageError(
            f"The predictions are of {', '.join(models)}; name one by --model"
            + (f", which is {name}." if name else ".")
        )
    return name


def shipped(name: str) -> ModelPackage | None:
    """Return the package of that name and hash that ships with this software, if one does."""
    for manifest in sorted(SHIPPED.glob(f"*/{MANIFEST}")):
        package = load_package(storage.normalise(str(manifest.parent)), weights=False)
        if package.id == name:
            return package
    return None
