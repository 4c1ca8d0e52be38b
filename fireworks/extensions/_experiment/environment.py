"""What a run ran with: its code, its command, its packages, its machine and its seeds."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["Environment", "read_environment", "seeds"]

_SECONDS = 20
_MOST_UNTRACKED = 1000
_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")


class Environment(NamedTuple):
    """What was found: plain values, the packages as pip reads them, and the changes that no commit has."""

    record: dict[str, Any]
    packages: str
    diff: bytes


def read_environment(code: Path | None = None) -> Environment:
    """Look at everything; what cannot be found out is None, or says why.

    Args:
        code: The folder of the code that counts; that of the script, or else the current one, by default.
    """
    git, diff = _git(_code_folders() if code is None else [code])
    record = {
        "command": [_without_password(argument) for argument in sys.orig_argv],
        "folder": os.getcwd(),
        "git": git,
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cpu": {"name": _cpu_name(), "count": os.cpu_count(), "memory": _memory()},
        "gpus": _gpus(),
        "cuda": torch.version.cuda,
        "seeds": seeds(),
    }
    return Environment(record, _packages(), diff)


def _without_password(argument: str) -> str:
    """Of a URL with a password the rest: records are shown to others."""
    return _PASSWORD.sub(r"\1:***@", argument)


# --- code ------------------------------------------------------------------------------------------------------------


def _git(folders: list[Path]) -> tuple[dict[str, Any] | None, bytes]:
    """The commit of the code that runs, and what differs from it; None where there is no repository."""
    for folder in folders:
        try:
            return _git_of(folder)
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode(errors="replace").strip()
            if "not a git repository" not in reason:
                return {"error": reason}, b""
        except subprocess.TimeoutExpired:
            return {"error": f"git gave no answer in {_SECONDS} seconds"}, b""
        except FileNotFoundError:
            return {"error": "git is not installed"}, b""
    return None, b""


def _code_folders() -> list[Path]:
    """Where the script is, unless it is an installed program; and where it was started."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folders = [Path(script).resolve().parent] if script else []
    installed = Path(sys.prefix).resolve()
    return [*(folder for folder in folders if not folder.is_relative_to(installed)), Path.cwd()]


def _git_of(folder: Path) -> tuple[dict[str, Any], bytes]:
    lines = _run_git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "-z").split(b"\0")
    texts = [os.fsdecode(line) for line in lines]
    heads = dict(text[2:].split(" ", 1) for text in texts if text.startswith("# branch."))
    commit = heads["branch.oid"] if heads["branch.oid"] != "(initial)" else None
    untracked = [text[2:] for text in texts if text.startswith("? ")]
    is_changed = any(text[:2] in ("1 ", "2 ", "u ") for text in texts)
    diff = _run_git(folder, *_DIFF, commit or _empty_tree(folder)) if is_changed else b""
    record = {
        "commit": commit,
        "branch": heads["branch.head"],
        "is_dirty": is_changed or bool(untracked),
        "untracked": untracked[:_MOST_UNTRACKED],
        "untracked_count": len(untracked),
    }
    return record, diff


# Whatever is configured, `git apply` shall take it.
_DIFF = [
    "diff",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-relative",
    "--binary",
    "--src-prefix=a/",
    "--dst-prefix=b/",
]


def _empty_tree(folder: Path) -> str:
    return _run_git(folder, "hash-object", "-t", "tree", "--stdin").decode().strip()


def _run_git(folder: Path, *arguments: str) -> bytes:
    # LC_ALL, because its words are read; no optional locks, because looking must not write.
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    finished = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=_SECONDS,
        env=environment,
    )
    return finished.stdout


@functools.cache  # reading them takes 0.1 s
def _packages() -> str:
    """Every installed package, line by line, as `pip install -r` takes it."""
    found = {(each.metadata["Name"] or "", each.version) for each in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found, key=lambda one: one[0].casefold()) if name)


# --- machine ---------------------------------------------------------------------------------------------------------


@functools.cache
def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()


def _memory() -> int | None:
    """In bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


@functools.cache
def _gpus() -> list[dict[str, str]]:
    """Asked of the driver's own program: torch would start CUDA in this process, after which it cannot be forked."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    fields = ["name", "memory.total", "driver_version"]
    try:
        asked = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
        printed = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(fields, line.split(", "), strict=False)) for line in printed.splitlines()]


# --- seeds -----------------------------------------------------------------------------------------------------------


def seeds() -> dict[str, Any]:
    """The seeds of the global generators: torch's, and those of numpy and Python where nothing was drawn from them yet.

    None stands for a seed that cannot be known any more.
    """
    torch_seed = torch.initial_seed()
    return {
        "torch": torch_seed,
        "numpy": _numpy_seed(),
        "python": torch_seed if random.getstate() == random.Random(torch_seed).getstate() else None,
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED"),
    }


def _numpy_seed() -> int | None:
    """Its first word is the seed, if the generator of that seed stands where this one does."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is meant
    candidate = int(state["state"]["key"][0])
    fresh = np.random.RandomState(candidate).get_state(legacy=False)
    is_same = state["state"]["pos"] == fresh["state"]["pos"]
    return candidate if is_same and np.array_equal(state["state"]["key"], fresh["state"]["key"]) else None
