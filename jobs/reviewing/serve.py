"""The workbench as a server of this machine alone; and decisions of one computer on another."""

import getpass
import os
import socket
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvicorn

from implant_model import storage
from implant_model.decode.preprocess import Preprocessing
from implant_model.errors import UsageError
from implant_model.package.load import ModelPackage, load_package
from implant_model.package.references import load_references
from implant_model.storage.local_files import OWNER_ALONE
from jobs.deciding.decisions import (
    MAX_NAME,
    DecisionTable,
    export_csv,
    export_parquet,
    is_reader,
    read_export,
)
from jobs.deciding.standing import CaseStanding, stand
from jobs.entry.command import DISCLAIMER, OK
from jobs.entry.folder import local_folder
from jobs.entry.ticker import waiting
from jobs.reviewing.cases import ReviewedAudit, open_audit
from jobs.reviewing.endpoints import Endpoints
from jobs.reviewing.guard import TOKEN, Guard
from jobs.reviewing.heat import Heat
from jobs.reviewing.neighbours import Neighbours
from jobs.reviewing.originals import Originals
from jobs.reviewing.settled import write_labels, write_synonyms
from jobs.reviewing.workbench import Workbench

HOST: Final = "127.0.0.1"


def serve(call: Namespace) -> int:
    """Open the workbench until it is stopped, of `jobs.review`.

    Returns:
        The exit code.

    Raises:
        UsageError: The call is wrong.
        StorageError: A table cannot be read or made.
    """
    os.umask(OWNER_ALONE)  # decisions hold numbers of the registry
    reader = reader_of(call.reviewer)
    with waiting("The audit is opened"):
        audit = opened(call)
        table = DecisionTable(audit.folder)
    with listening(call.port) as channel, Originals(preprocessing_of(audit)) as originals:
        originals.start()
        bench = Workbench(audit, table, originals, reader)
        guard = Guard()
        heat = Heat(audit.package)
        neighbours = neighbours_of(audit.package, heat)
        application = Endpoints(bench, guard, heat, neighbours).application()
        _announce(bench, f"http://{HOST}:{channel.getsockname()[1]}/?{TOKEN}={guard.token}")
        try:
            run(application, channel)
        finally:
            bench.close()
    return OK


def try_model(call: Namespace) -> int:
    """Open the page that radiographs are dropped on, of `jobs.review` without an audit.

    Returns:
        The exit code.

    Raises:
        UsageError: The call is wrong, or the package is missing or damaged.
    """
    with waiting("The model is loaded"):
        from jobs.reviewing.trial import Trial  # torch takes seconds; the workbench does without

        model = storage.normalise(call.model)
        package = load_package(model, weights=False)
    with listening(call.port) as channel, Originals(package.preprocessing) as originals:
        guard, heat = Guard(), Heat(package)
        neighbours = neighbours_of(package, heat)
        trial = Trial(model, package, originals, guard, heat, neighbours)
        address = f"http://{HOST}:{channel.getsockname()[1]}/?{TOKEN}={guard.token}"
        print(f"Model: {package.id}\nOpen {address}\nCtrl-C ends it. {DISCLAIMER}", flush=True)
        run(trial.application(), channel)
    return OK


def exchange(call: Namespace) -> int:
    """Merge decisions into the audit's, or export them; the workbench is not opened.

    Raises:
        UsageError: A file is not there or is of another kind.
        StorageError: The table cannot be read or written.
    """
    os.umask(OWNER_ALONE)
    folder = local_folder(call.audit, "--audit")
    with waiting("The audit is opened"):
        audit = opened(call)
    table = DecisionTable(folder)
    exports = [(file, read_export(file)) for file in call.merge]  # all, before any is added
    for file, found in exports:
        added = table.merge(found)
        kept = {decision.id: decision for decision in table.all()}
        differing = sum(decision != kept[decision.id] for decision in found)
        foreign = sum(decision.case not in audit.cases for decision in found)
        print(f"{file}: {added:,} of {len(found):,} decisions added, the others were there.")
        if differing:
            print(f"  {differing:,} differ from the one of the same id that is there, which stays.")
        if foreign:
            print(f"  {foreign:,} are of records that this audit does not serve.")
    if call.export:
        _export(Path(call.export), table)
    standing = stand(table.all(), audit.claims)
    if call.labels:
        _write(call.labels, "--labels", lambda path: _labels(path, audit, standing))
    if call.synonyms:
        _write(call.synonyms, "--synonyms", lambda path: _synonyms(path, audit, standing))
    return OK


def _write(text: str, option: str, work: Callable[[Path], str]) -> None:
    """Write a CSV file of an option, and print what is in it."""
    path = Path(text)
    if path.suffix.lower() != ".csv":
        raise UsageError(f"{option} is {text}; a .csv is expected.")
    try:
        print(f"{path}: {work(path)}")
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be written: {error.strerror}.") from error


def _labels(path: Path, audit: ReviewedAudit, standing: Mapping[str, CaseStanding]) -> str:
    with Originals(preprocessing_of(audit)) as originals:
        count, num_lost = write_labels(path, audit, standing, originals)
    lost = f" {num_lost:,} could not be read again and have none." if num_lost else ""
    return f"{count:,} radiographs with a label.{lost}"


def _synonyms(path: Path, audit: ReviewedAudit, standing: Mapping[str, CaseStanding]) -> str:
    num_filled, num_disputed = write_synonyms(path, audit, standing)
    rest = f" On {num_disputed:,} readers disagree; they stay open." if num_disputed else ""
    return f"{num_filled:,} texts with a meaning by readers.{rest}"


def opened(call: Namespace) -> ReviewedAudit:
    """Return the audit that a call names."""
    folder = local_folder(call.audit, "--audit")
    predictions, model = (uri and storage.normalise(uri) for uri in (call.predictions, call.model))
    return open_audit(folder, predictions, model, [*map(storage.normalise, call.archives)])


def reader_of(name: str | None) -> str:
    """Return the reader's name.

    Raises:
        UsageError: It is empty, too long or not printable, or nobody is logged in.
    """
    try:
        reader = (getpass.getuser() if name is None else name).strip()
    except (KeyError, OSError) as error:
        raise UsageError("The login has no name; give --reviewer NAME.") from error
    if not is_reader(reader):
        raise UsageError(f"--reviewer takes 1 to {MAX_NAME} printable characters.")
    return reader


def preprocessing_of(audit: ReviewedAudit) -> Preprocessing:
    """Return what the networks see, for saliency; any serves where there is no package."""
    return Preprocessing() if audit.package is None else audit.package.preprocessing


def neighbours_of(package: ModelPackage | None, heat: Heat) -> Neighbours | None:
    """Return what finds references; None where there is no package, or it has none.

    Raises:
        PackageError: They are damaged, or of another package.
    """
    references = None if package is None else load_references(package)
    if package is None or references is None:
        return None
    return Neighbours(package, references, heat)


def listening(port: int) -> socket.socket:
    """Return a socket of this machine alone.

    Raises:
        UsageError: The port is not to be had.
    """
    channel = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        channel.bind((HOST, port))
    except OSError as error:
        channel.close()
        raise UsageError(f"--port {port} is not to be had: {error.strerror}.") from error
    channel.listen(64)
    return channel


def run(application: object, channel: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM; no request is logged, since addresses hold the token."""
    config = uvicorn.Config(
        application,  # type: ignore[arg-type]
        log_level="error",
        access_log=False,
        ws="none",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    with suppress(KeyboardInterrupt):  # raised once more by uvicorn when it has ended
        uvicorn.Server(config).run(sockets=[channel])


def _announce(bench: Workbench, address: str) -> None:
    audit = bench.audit
    print(
        f"{len(audit.worklist):,} contradictions and a sample of {len(audit.sample):,}; "
        f"{len(bench.decisions()):,} decisions are there. Reader: {bench.reader}\n"
        f"Open {address}\nCtrl-C ends the workbench. {DISCLAIMER}",
        flush=True,
    )


def _export(path: Path, table: DecisionTable) -> None:
    writers = {".csv": export_csv, ".parquet": export_parquet}
    if path.suffix.lower() not in writers:
        raise UsageError(f"--export is {path}; a .csv or .parquet is expected.")
    decisions = table.all()
    try:
        writers[path.suffix.lower()](path, decisions)
    except OSError as error:
        raise UsageError(f"--export {path} cannot be written: {error.strerror}.") from error
    print(f"{path}: {len(decisions):,} decisions")
