"""fireworks: data pipelines for PyTorch, from tables, databases and files to batches, models and results.

`import fireworks` loads core and toolbox, so it stays light. Extensions need libraries of their own: import them by
path (`from fireworks.extensions import training`) or take their names from here, which imports them at first use.
"""

from importlib import import_module
from typing import Any

from fireworks import core, toolbox, utils
from fireworks.core import cache, junction, message, model, pipe
from fireworks.core.junction import Junction
from fireworks.core.message import Message, TensorMessage, cat, merge
from fireworks.core.model import Model, PyTorch_Model, model_from_module
from fireworks.core.pipe import HookedPassThroughPipe, Pipe, recursive
from fireworks.core.scaffold import Scaffold
from fireworks.utils.exceptions import did_you_mean

__version__ = "0.4.0"

__all__ = [
    "Experiment",
    "HookedPassThroughPipe",
    "IgniteJunction",
    "Junction",
    "LocalMemoryFactory",
    "Message",
    "Model",
    "Pipe",
    "PyTorch_Model",
    "SQLFactory",
    "Scaffold",
    "TensorMessage",
    "cache",
    "cat",
    "core",
    "database",
    "experiment",
    "factory",
    "junction",
    "merge",
    "message",
    "model",
    "model_from_module",
    "pipe",
    "recursive",
    "toolbox",
    "training",
    "utils",
]

# Names of extensions and where they live: imported when somebody asks for them. Each stands in `__all__` too.
_LAZY = {
    "database": "fireworks.extensions.database",
    "Experiment": "fireworks.extensions.experiment",
    "IgniteJunction": "fireworks.extensions.training",
    "LocalMemoryFactory": "fireworks.extensions.factory",
    "SQLFactory": "fireworks.extensions.factory",
    "experiment": "fireworks.extensions.experiment",
    "factory": "fireworks.extensions.factory",
    "training": "fireworks.extensions.training",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'fireworks' has no attribute {name!r}{did_you_mean(name, __all__)}")
    path = _LAZY[name]
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"fireworks.{name} needs {error.name}, which is not installed; "
            f"`pip install --upgrade fireworks-ml` brings what {path} needs"
        ) from error
    value = module if path.endswith(f".{name}") else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
