"""Is there somebody who would see a progress bar?"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["somebody_watches"]


def somebody_watches() -> bool:
    """Whether a bar would be seen: the error stream is a terminal, or this is a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return sys.stderr.isatty() or type(shell).__name__ == "ZMQInteractiveShell"
