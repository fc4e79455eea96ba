"""What every job does at its edges: a command line, exit codes, errors of one sentence."""

import argparse
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, NoReturn

from implant_model.errors import LINUX_ONLY, BusyError, ImplantError, UsageError
from implant_model.storage.endpoint import ALLOW_HTTP
from jobs.entry.ray_lines import restore, visible

OK: Final = 0
USAGE: Final = 2
INCOMPLETE: Final = 3
BUSY: Final = 75

DISCLAIMER: Final = (
    "For registry audit and research. Not a medical device: not for diagnosis, and not for "
    "identifying an implant before surgery."
)


_ALLOW_HTTP: Final = (
    "accept an object store without TLS on another machine than this; for a private network"
)


class _AllowHttp(argparse.Action):
    """Holds for the process from here on, and by `start_ray` for its cluster's nodes."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, *_: object) -> None:
        os.environ[ALLOW_HTTP] = "1"


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one sentence: a UsageError.

    Args:
        name: Of the job.
        description: The job's docstring; its first line is the summary.
    """

    def __init__(self, name: str, description: str | None) -> None:
        super().__init__(
            prog=f"python -m jobs.{name}",
            description=description,
            epilog=DISCLAIMER,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--allow-http", action=_AllowHttp, help=_ALLOW_HTTP)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print with its usage."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def run_command(
    name: str, work: Callable[[], int], resume: str = "the same command goes on"
) -> NoReturn:
    """Run a job's work and end the process with the contract's exit code.

    The last line of the log names the code, since `ray job submit` itself ends with 0 or 1.
    `resume` is said of a run that was stopped.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _stop_after_all
    _tolerate_any_encoding()
    stopped = False
    try:
        if sys.platform != "linux":
            raise UsageError(LINUX_ONLY)
        code = work()
    except UsageError as error:
        code = _complain(name, error, USAGE)
    except BusyError as error:
        code = _complain(name, error, BUSY)
    except ImplantError as error:
        code = _complain(name, error, INCOMPLETE)
    except KeyboardInterrupt:
        stopped = True
        code = _complain(name, f"Stopped before the end; {resume}.", INCOMPLETE)
    except BaseException:
        restore()
        raise
    _end_ray(stopped=stopped)
    visible().write(f"{name}: exit code {code}\n")
    logging.shutdown()
    sys.stdout.flush()
    visible().flush()
    # Not sys.exit: a native library's thread that outlives the interpreter aborts the process, and
    # with it the code ("terminate called without an active exception", seen on a busy machine).
    os._exit(code)


def _end_ray(*, stopped: bool) -> None:
    """Leave the cluster, or end the local one, if this process has one.

    A run that was stopped leaves a cluster that it joined by ending: threads of Ray Data are still
    at work, and to disconnect under them may abort the process (exit code -6 where 3 was to come).
    """
    if "ray" not in sys.modules or (stopped and os.environ.get("RAY_ADDRESS")):
        return
    sys.modules["ray"].shutdown()


class Terminated(KeyboardInterrupt):
    """SIGTERM: the scheduler wants the job to end.

    A KeyboardInterrupt, because `ray.get` lets no other exception out of a signal's handler: it
    would wait on as if nothing had come (seen with Ray 2.60).
    """


def _terminate(signum: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not break the ending
    raise Terminated


def _stop_after_all(ignored: "sys.UnraisableHookArgs") -> None:
    """Repeat a signal whose exception was lost.

    It may be raised within a finalizer or a weak reference's callback, where Python reports it and
    goes on: the run would end as if nobody had asked it to stop.
    """
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(ignored)
        return
    again = signal.SIGINT
    if issubclass(ignored.exc_type, Terminated):
        again = signal.SIGTERM
        signal.signal(signal.SIGTERM, _terminate)
    # Not from here: an exception that is raised in this hook is lost, too.
    threading.Timer(0.05, os.kill, (os.getpid(), again)).start()


def shown(text: str) -> str:
    """Return one line for a terminal or a log, with what is not printable as escapes.

    Names of archives come from whoever fills the store: a line end in one could forge a line of the
    log, an escape sequence drive the terminal, a direction mark reverse what is read.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _complain(name: str, error: object, code: int) -> int:
    visible().write(f"{name}: {shown(str(error))}\n")
    return code


def _tolerate_any_encoding() -> None:
    """Escape what a terminal's or a file's encoding lacks: it must not end a finished run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
