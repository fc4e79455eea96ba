"""What fails in a task of Ray's comes out as one sentence of ours, without Ray's traceback.

Ray raises a task's error anew as one that is of its class and of Ray's own, and whose text is a
traceback out of the worker; `run_command` would print that where the user needs a sentence.
"""

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from implant_model.errors import ImplantError


class TrainingError(ImplantError):
    """A training that ended before its last epoch; `--resume` goes on."""


def results_of(tasks: Sequence["ray.ObjectRef[Any]"]) -> list[Any]:
    """Wait for tasks and return their results.

    Raises:
        ImplantError: A task raised it, just as it was raised there.
        TrainingError: Ray lost a task, or could not bring it to a worker.
    """
    try:
        results: list[Any] = ray.get(list(tasks))
    except RayTaskError as error:
        raised = error.cause
        while isinstance(raised, RayTaskError):  # of a task's own task
            raised = raised.cause
        if isinstance(raised, ImplantError):
            raise raised from error
        raise  # a fault of ours: there the traceback is expected
    except RayError as error:
        raise TrainingError(f"Ray lost a task of the training: {last_line(error)}") from error
    return results


def last_line(error: BaseException) -> str:
    """Return the line that ends the text of an error, which in a traceback is the error itself."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()
