r"""Makes the key of the pseudonyms, shows the id of one, and finds files by their keyed names.

    python -m jobs.keys new pseudonyms.key
    python -m jobs.keys id pseudonyms.key
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.keys id aws-secretsmanager:implant-key
    python -m jobs.keys names predictions/ radiographs/ --csv names.csv

`new` writes 32 random bytes in base64 to a file that its owner alone may read, and never over one
that is there. Who has the key can find out whose pseudonym is whose; who loses it can join no later
output to an older one: keep it where passwords are kept. The id is no secret: the table `archives`
has it, so that an audit with another key finds out. `id` takes what --key-file takes.

`names OUTPUT INPUT [INPUT ...]` writes which file each `loose-...` of the tables is: classify keys
the names of loose radiographs unless identifiers are kept. It needs OUTPUT/_private/key.
Exit codes: 0 done; 2 the call is wrong, or there is no such key; 3 an INPUT cannot be listed.
"""

import base64
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from implant_model.errors import UsageError
from implant_model.pseudonym_key import MIN_KEY, check_key, fingerprint, read_key
from implant_model.storage.uri import normalise
from jobs.entry.command import OK, Parser, run_command

_ACTIONS = "make a key, show a key's id, or list the files of loose radiographs"
_PLACES = "new: a file that is not there; id: a key's source; names: OUTPUT INPUT [INPUT ...]"
_CSV = "names: the table to write; default names.csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("keys", __doc__)
    parser.add_argument("action", choices=("new", "id", "names"), help=_ACTIONS)
    parser.add_argument("place", nargs="+", metavar="PLACE", help=_PLACES)
    parser.add_argument("--csv", default="names.csv", metavar="FILE", help=_CSV)
    call = parser.parse_args(arguments)
    if call.action == "names":
        if len(call.place) < 2:
            raise UsageError("names needs an OUTPUT and at least one INPUT; see --help.")
        write_names(*map(normalise, call.place), path=Path(call.csv))
        return OK
    if len(call.place) > 1:
        raise UsageError(f"{call.action} takes one key; {len(call.place)} are given.")
    if call.action == "new":
        print(f"The key is in {make_key(Path(call.place[0]))}; its owner alone may read it.")
    print(f"Key id: {fingerprint(read_key(call.place[0]))}")
    return OK


def write_names(output: str, *inputs: str, path: Path) -> None:
    """Write which file each loose radiograph of an output is, as CSV for its owner alone.

    Raises:
        UsageError: The output has no keyed names, or the file cannot be written.
        StorageError: A store does not answer.
    """
    import pyarrow as pa

    from implant_model.storage.spreadsheets import write_csv
    from jobs.tables.loose_names import find_files

    found = [
        {"archive": name, "archive_version": planned.known.version, "file": planned.info.uri}
        for name, planned in find_files(output, inputs)
    ]
    schema = pa.schema({name: pa.string() for name in ("archive", "archive_version", "file")})
    try:
        write_csv(path, pa.Table.from_pylist(found, schema=schema))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
    print(f"{len(found):,} loose radiographs: {path}")


def make_key(path: Path) -> Path:
    """Write a new key, readable by its owner alone; return its file.

    Raises:
        UsageError: The file is there, or cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(_random_key() + b"\n")
    except FileExistsError:
        raise UsageError(
            f"{path} is there already; a key that is in use is not written over. Name another file."
        ) from None
    except OSError as error:
        raise UsageError(f"The key file {path} cannot be written: {error.strerror}.") from None
    return path


def _random_key() -> bytes:
    while True:
        key = base64.b64encode(secrets.token_bytes(MIN_KEY))
        try:
            check_key(key, "The key")
        except UsageError:
            continue  # one of a thousand reads as words
        return key


if __name__ == "__main__":
    run_command("keys", lambda: main(sys.argv[1:]))
