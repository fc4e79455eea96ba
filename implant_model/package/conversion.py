"""Checks a package's weights and converts its networks in a process beside the caller's.

Both need torch, which takes 3 s of CPU to import and 0.3 GB: the driver of a job goes on meanwhile
and does without, and so do actors on CPUs, which get the converted networks. The child reads the
same package again, and answers on its standard output with what is wrong, or with the networks:
they come from no file that somebody could change.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from implant_model.errors import ImplantError, PackageError
from implant_model.networks.engine import EngineError
from implant_model.package.load import ModelPackage, check_weights, checked_networks, load_package

WRONG: Final = 2
"""Exit code of a child that found something wrong."""
_ROOT: Final = str(Path(__file__).resolve().parents[2])


@contextlib.contextmanager
def converting(uri: str, package: ModelPackage) -> Iterator[Callable[[], bytes | None]]:
    """Begin; yield what waits for the end, and returns the networks for `engine.unpacked`.

    They are None where torch has to run them. Where torch is imported already all is done at once;
    where the child fails for a reason of its own, say for want of memory, the weights are checked
    by who waits, and nothing is converted.

    Args:
        uri: Where the package was loaded from.
        package: As `load_package` returned it.

    Raises:
        PackageError: By what is yielded: the weights do not fit, see `check_weights`.
    """
    if "torch" in sys.modules:
        converted = check_and_convert(package)
        yield lambda: converted
        return
    with _child(uri, package.id) as child, ThreadPoolExecutor(1) as pool:
        talk = pool.submit(child.communicate)

        def wait() -> bytes | None:
            said = talk.result()[0]
            if child.returncode == WRONG:
                raise PackageError(said.decode())
            if child.returncode:
                check_weights(package)
                return None
            return said or None

        try:
            yield wait
        finally:
            child.kill()  # where the caller does not wait any more


def _child(uri: str, package_id: str) -> "subprocess.Popen[bytes]":
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "implant_model.package.conversion", uri, package_id],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def check_and_convert(package: ModelPackage) -> bytes | None:
    """Do here what `converting` does beside.

    Raises:
        PackageError: The weights do not fit.
    """
    from implant_model.networks.build import fold_batch_norms
    from implant_model.networks.convert import convert, is_convertible

    networks = checked_networks(package)
    if not is_convertible(networks):
        return None
    fold_batch_norms(networks)
    try:
        return convert(networks, package.preprocessing.size_px).packed()
    except EngineError:
        return None  # an actor's `Classifier` finds the same, and logs it


def main(uri: str, expected: str) -> int:
    """Serve one package to the standard output.

    Args:
        uri: Where it lies.
        expected: Its `name@hash`; another one, or none, is for the parent to deal with.
    """
    try:
        package = load_package(uri, weights=False)
    except ImplantError:
        return 1
    if package.id != expected:
        return 1
    try:
        said = check_and_convert(package)
    except PackageError as error:
        sys.stdout.buffer.write(str(error).encode())
        return WRONG
    sys.stdout.buffer.write(said or b"")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
