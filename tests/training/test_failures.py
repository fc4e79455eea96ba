"""What fails in a task of Ray's: one sentence of ours, and the right exit code."""

from typing import NoReturn

import pytest
import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from implant_model.errors import UsageError
from training.failures import TrainingError, last_line, results_of

TRACEBACK = "Traceback (most recent call last):\n  File x\nUsageError: Too few masks."


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def get(refs: object) -> NoReturn:
        raise error

    monkeypatch.setattr(ray, "get", get)


def of_task(cause: Exception) -> Exception:
    """As `ray.get` raises it: of both classes, with a traceback for its text."""
    error: Exception = RayTaskError("_fit", TRACEBACK, cause).as_instanceof_cause()
    return error


def test_a_tasks_own_sentence_is_all_that_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = "Too few masks."
    raised = of_task(UsageError(sentence))
    assert isinstance(raised, UsageError)
    assert "File x" in str(raised)
    for error in (raised, RayTaskError("_outer", TRACEBACK, raised)):
        failing(monkeypatch, error)
        with pytest.raises(UsageError) as caught:
            results_of([])
        assert str(caught.value) == sentence


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, of_task(ZeroDivisionError("division by zero")))
    with pytest.raises(RayTaskError, match="File x"):
        results_of([])


def test_a_lost_worker_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, WorkerCrashedError())
    with pytest.raises(TrainingError, match="Ray lost a task of the training: ") as caught:
        results_of([])
    assert "\n" not in str(caught.value)


def test_the_last_line_of_a_traceback_is_the_error() -> None:
    assert last_line(RuntimeError(TRACEBACK)) == "UsageError: Too few masks."
    assert last_line(RuntimeError()) == "RuntimeError"
