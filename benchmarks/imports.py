"""I. How long importing takes, each time in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.runner import OURS, Target, Workload

TITLE = "Import time, each in a fresh process"
BASE = "import torch, pandas"


def workloads(scale: float, folder: Path) -> Iterator[Workload]:
    yield Workload("import", {OURS: _fresh("import fireworks"), BASE: _fresh(BASE)}, [Target(1.15, BASE)])


def _fresh(statement: str) -> Callable[[], dict[str, list[int]]]:
    return lambda: {"exit": [subprocess.run([sys.executable, "-c", statement], check=True).returncode]}
