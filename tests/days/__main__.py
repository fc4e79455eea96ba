"""Plays pages of docs/days and writes what they print into them.

python -m tests.days [analyst | engineer | researcher ...]
"""

import sys
import tempfile
from pathlib import Path

from tests.days.played import DAYS, PLAYERS
from tests.days.transcript import rewrite

if __name__ == "__main__":
    for name in sys.argv[1:] or DAYS:
        with tempfile.TemporaryDirectory(prefix="day-", dir="/tmp") as folder:
            rewrite(DAYS[name], PLAYERS[name](Path(folder)))
