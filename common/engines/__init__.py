"""Ignite engines of the collection."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cascade": ["CascadeStage"],
        "evaluation": ["Evaluation"],
        "kernel_estimation": ["KernelEstimation"],
        "player": ["ConstantThenLinear", "Player"],
        "run_folder": ["RunFolder"],
        "staged": ["StagedTrainer"],
        "trainer": ["AlternatingTrainer"],
    },
)
