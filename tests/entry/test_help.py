"""`--help` of each command: at once, and with a line for each option."""

import argparse
import importlib
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if path.stem != "__init__")


class Made(Exception):
    """A command's parser, in place of what it would parse."""


@pytest.mark.parametrize("job", JOBS)
def test_each_option_has_its_line_of_help(job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(parser: argparse.ArgumentParser, arguments: object = None) -> None:
        raise Made(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", made)
    with pytest.raises(Made) as caught:
        importlib.import_module(f"jobs.{job}").main([])
    (parser,) = caught.value.args
    actions = [action for action in parser._actions if action.dest != "help"]
    assert [action.dest for action in actions if not action.help] == []
    unsaid = [
        action.dest
        for action in actions
        if action.default not in (None, [], False, argparse.SUPPRESS, frozenset())
        and "default" not in action.help
    ]
    assert unsaid == []


@pytest.mark.parametrize("job", JOBS)
def test_help_needs_neither_torch_nor_ray(job: str) -> None:
    code = (
        "import sys, importlib\n"
        f"try: importlib.import_module('jobs.{job}').main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'ray', 'pandas', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == "set()\n"
    assert done.stdout.startswith(f"usage: python -m jobs.{job}")
