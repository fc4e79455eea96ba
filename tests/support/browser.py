"""A page laid out by a real browser, headless Chromium, and measured there."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PROBE = """<!doctype html><title>none</title><style>iframe { border: 0 }</style>
<iframe src="report.html" width="WIDTH" height="900"></iframe>
<script>
document.querySelector('iframe').addEventListener('load', event => {
  const page = event.target.contentDocument, root = page.documentElement;
  document.title = `${root.scrollWidth} of ${root.clientWidth}, ` +
    `${page.styleSheets[0].cssRules.length} rules, ${page.scripts.length} scripts`;
});
</script>
"""


@dataclass(frozen=True)
class Layout:
    """Widths in CSS pixels that the content needs and was given, rules and scripts in force."""

    needed: int
    given: int
    rules: int
    scripts: int


def chromium(without_it: str) -> str:
    """The browser's path; skips the test, which is `without_it`, where there is none."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip(f"chromium is not installed; {without_it} here")
    return path


def lay_out(page: str, width: int, folder: Path) -> Layout:
    """Opens a page in a window of that width; skips the test where there is no Chromium."""
    browser = chromium("the page is not laid out by a browser")
    (folder / "report.html").write_text(page, encoding="utf-8")
    probe = folder / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=3000"]
    command += [f"--user-data-dir={folder / 'profile'}", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>(\d+) of (\d+), (\d+) rules, (\d+) scripts</title>", done.stdout)
    assert found is not None, done.stdout[-2000:]
    return Layout(*map(int, found.groups()))
