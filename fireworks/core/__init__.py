"""The five nouns that everything else is built from.

- A **Message** holds columns: tensors and a DataFrame, row for row. It resembles a DataFrame that can hold tensors.
- A **Pipe** produces messages and passes on what it does not handle. It resembles an iterator that can be indexed, too.
- A **Junction** joins several inputs by name. It resembles a Pipe with more than one input.
- A **Model** is a Pipe with learnable components. It is a `torch.nn.Module`.
- A **Cache** remembers rows by their index. It resembles a dict of rows that never outgrows its size.

Each has a module of its own. `component_map` says who owns which component of a junction or model, and `scaffold` saves
and restores a whole pipeline. Core needs numpy, pandas and torch, and pyarrow and safetensors to save a message.
"""

from fireworks.core import cache, component_map, junction, message, model, pipe, scaffold
from fireworks.core.cache import (
    BufferedCache,
    LFUCache,
    LRUCache,
    MessageCache,
    RankingCache,
    RRCache,
    UnlimitedCache,
)
from fireworks.core.component_map import Component_Map, ComponentMap, PyTorch_Component_Map
from fireworks.core.junction import Junction, PyTorch_Junction
from fireworks.core.message import Message, TensorMessage, cat, merge
from fireworks.core.model import Model, PyTorch_Model, freeze_module, model_from_module, unfreeze_module
from fireworks.core.pipe import HookedPassThroughPipe, Pipe, recursive
from fireworks.core.scaffold import Scaffold

__all__ = [
    "BufferedCache",
    "ComponentMap",
    "Component_Map",
    "HookedPassThroughPipe",
    "Junction",
    "LFUCache",
    "LRUCache",
    "Message",
    "MessageCache",
    "Model",
    "Pipe",
    "PyTorch_Component_Map",
    "PyTorch_Junction",
    "PyTorch_Model",
    "RRCache",
    "RankingCache",
    "Scaffold",
    "TensorMessage",
    "UnlimitedCache",
    "cache",
    "cat",
    "component_map",
    "freeze_module",
    "junction",
    "merge",
    "message",
    "model",
    "model_from_module",
    "pipe",
    "recursive",
    "scaffold",
    "unfreeze_module",
]
