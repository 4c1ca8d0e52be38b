"""Ready-made pieces, built from the five nouns of core: pipes, junctions, preprocessing, and text."""

from fireworks.toolbox import junctions, pipes, preprocessing, text
from fireworks.toolbox.junctions import ClockworkHubJunction, HubJunction, RandomHubJunction, SwitchJunction
from fireworks.toolbox.pipes import (
    BatchingPipe,
    CachingPipe,
    FunctionPipe,
    GradientPipe,
    IndexMapperPipe,
    LabelerPipe,
    LoopingPipe,
    RepeaterPipe,
    ShufflerPipe,
    TensorPipe,
    Title2LabelPipe,
)
from fireworks.toolbox.preprocessing import Normalizer, train_test_split

__all__ = [
    "BatchingPipe",
    "CachingPipe",
    "ClockworkHubJunction",
    "FunctionPipe",
    "GradientPipe",
    "HubJunction",
    "IndexMapperPipe",
    "LabelerPipe",
    "LoopingPipe",
    "Normalizer",
    "RandomHubJunction",
    "RepeaterPipe",
    "ShufflerPipe",
    "SwitchJunction",
    "TensorPipe",
    "Title2LabelPipe",
    "junctions",
    "pipes",
    "preprocessing",
    "text",
    "train_test_split",
]
