"""Ready-made pieces, built from the five nouns of core: pipes, junctions, preprocessing, and text."""

from fireworks.toolbox import junctions, pipes, preprocessing, text
from fireworks.toolbox.junctions import ClockworkHubJunction, HubJunction, RandomHubJunction, SwitchJunction
from fireworks.toolbox.pipes import (
    BatchingPipe,
    BucketBatchingPipe,
    CachingPipe,
    FunctionPipe,
    GradientPipe,
    IndexMapperPipe,
    LabelerPipe,
    LoopingPipe,
    NoisePipe,
    OversamplePipe,
    RepeaterPipe,
    ShufflerPipe,
    SizeBatchingPipe,
    TensorPipe,
    Title2LabelPipe,
    TokenizerPipe,
)
from fireworks.toolbox.preprocessing import Normalizer, apply_noise, oversample, train_test_split

__all__ = [
    "BatchingPipe",
    "BucketBatchingPipe",
    "CachingPipe",
    "ClockworkHubJunction",
    "FunctionPipe",
    "GradientPipe",
    "HubJunction",
    "IndexMapperPipe",
    "LabelerPipe",
    "LoopingPipe",
    "NoisePipe",
    "Normalizer",
    "OversamplePipe",
    "RandomHubJunction",
    "RepeaterPipe",
    "ShufflerPipe",
    "SizeBatchingPipe",
    "SwitchJunction",
    "TensorPipe",
    "Title2LabelPipe",
    "TokenizerPipe",
    "apply_noise",
    "junctions",
    "oversample",
    "pipes",
    "preprocessing",
    "text",
    "train_test_split",
]
