"""Hyperparameter search on a blackboard: propose parameters, train, evaluate, record, and again.

A **Factory** runs trials until its generator ends the search. What was found so far is on the blackboard: in memory
(`LocalMemoryFactory`) or in a SQL database (`SQLFactory`), where several factories in several processes share it, and
where nothing is lost when one of them dies. A **generator** proposes parameters: `GridGenerator`, `RandomGenerator`,
`OptunaGenerator`, or any function of the past. A trainer that asks for it gets a **Trial**, to save checkpoints and to
report how it does; a **pruner** such as `MedianPruner` ends trials that do badly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fireworks.extensions._factory.base import Factory
from fireworks.extensions._factory.generators import GridGenerator, RandomGenerator
from fireworks.extensions._factory.handle import Trial
from fireworks.extensions._factory.local import LocalMemoryFactory
from fireworks.extensions._factory.protocol import Generator, History, Proposer, Pruner, TrialRecord
from fireworks.extensions._factory.pruning import MedianPruner
from fireworks.extensions._factory.spaces import Choice, Integers, Uniform
from fireworks.extensions._factory.sql import SQLFactory
from fireworks.utils.exceptions import EndHyperparameterOptimization, did_you_mean

if TYPE_CHECKING:
    from fireworks.extensions._factory.optuna_generator import OptunaGenerator, OptunaPruner

__all__ = [
    "Choice",
    "EndHyperparameterOptimization",
    "Factory",
    "Generator",
    "GridGenerator",
    "History",
    "Integers",
    "LocalMemoryFactory",
    "MedianPruner",
    "OptunaGenerator",
    "OptunaPruner",
    "Proposer",
    "Pruner",
    "RandomGenerator",
    "SQLFactory",
    "Trial",
    "TrialRecord",
    "Uniform",
]


def __getattr__(name: str) -> Any:
    """What needs optuna is imported when somebody asks for it."""
    if name in ("OptunaGenerator", "OptunaPruner"):
        from fireworks.extensions._factory import optuna_generator

        return getattr(optuna_generator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{did_you_mean(name, __all__)}")
