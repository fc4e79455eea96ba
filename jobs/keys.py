r"""Makes the key of the pseudonyms, and shows the id of one.

    python -m jobs.keys new pseudonyms.key
    python -m jobs.keys id pseudonyms.key
    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python -m jobs.keys id aws-secretsmanager:implant-key

`new` writes 32 random bytes in base64 to a file that its owner alone may read, and never over one
that is there. Who has the key can find out whose pseudonym is whose; who loses it can join no later
output to an older one: keep it where passwords are kept. The id is no secret: the table `archives`
has it, so that an audit with another key finds out. `id` takes what --key-file takes.
Exit codes: 0 done; 2 the call is wrong, or there is no such key.
"""

import base64
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

from implant_model.errors import UsageError
from implant_model.pseudonym_key import MIN_KEY, check_key, fingerprint, read_key
from jobs.entry.command import OK, Parser, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, chain, summary; return the exit code."""
    parser = Parser("keys", __doc__)
    parser.add_argument("action", choices=("new", "id"), help="make a key, or show a key's id")
    parser.add_argument("key", metavar="KEY", help="new: a file that is not there; id: its source")
    call = parser.parse_args(arguments)
    if call.action == "new":
        print(f"The key is in {make_key(Path(call.key))}; its owner alone may read it.")
    print(f"Key id: {fingerprint(read_key(call.key))}")
    return OK


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
