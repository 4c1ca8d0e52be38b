"""Names in an experiment's folder: one file or folder in it, on every system, and never anything outside."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = [
    "IDENTITY",
    "METRICS",
    "PARAMETERS",
    "SAVED",
    "STATUS",
    "STDERR",
    "STDOUT",
    "check_name",
    "check_not_ours",
    "is_ours",
    "path_in",
]

IDENTITY = "experiment.json"
STATUS = "status.json"
PARAMETERS = "parameters.json"
METRICS = "metrics.jsonl"
STDOUT, STDERR = "stdout.txt", "stderr.txt"
SAVED = "saved"

_OURS = {IDENTITY, STATUS, PARAMETERS, METRICS, STDOUT, STDERR, SAVED}
_OF_A_RUN = re.compile(r"run_\d+(\.json|\.packages\.txt|\.diff)")
# Windows takes these for devices, with any suffix.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# Half of a pair of UTF-16 is no character, and not to be written as UTF-8.
_FORBIDDEN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')


def check_name(name: object, of: str) -> str:
    """The name, if it can be that of one file or folder on every system.

    Args:
        name: What was given.
        of: What is named, for the error.

    Raises:
        TypeError: It is no text.
        ValueError: It would leave the folder, or be a name on some systems only.

    Example:
        >>> check_name("losses.csv", of="a file")
        'losses.csv'
    """
    if not isinstance(name, str):
        raise TypeError(f"expected text as the name of {of}, got {type(name).__name__} {name!r:.80}")
    is_plain = name.strip(" .") and not name.endswith((" ", ".")) and not _FORBIDDEN.search(name)
    if not is_plain or _DEVICE.fullmatch(name):
        raise ValueError(
            f"expected the name of {of}, got {name!r:.200}: a name of one file in the experiment's folder, good on "
            'every system: no / \\ : * ? " < > | or control character, no space or dot at its end, not NUL or CON'
        )
    return name


def path_in(folder: Path, name: object, of: str) -> Path:
    """The path of a name in a folder.

    Raises:
        ValueError: The name is none, or a link in the folder leads out of it.
    """
    path = folder / check_name(name, of)
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} is a link to {path.resolve()}, which is outside of the experiment's folder")
    return path


def is_ours(name: str) -> bool:
    """Whether a file in the folder is one that the experiment itself writes."""
    return name.casefold() in _OURS or _OF_A_RUN.fullmatch(name.casefold()) is not None


def check_not_ours(name: str) -> None:
    """Refuse a name that the experiment needs for itself.

    Raises:
        ValueError: It is one of these.
    """
    if is_ours(name):
        raise ValueError(
            f"{name!r} is written by the experiment itself; it can be read, but to write choose another name"
        )
