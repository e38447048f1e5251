"""Ignite handlers that MONAI lacks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint": ["BestModel", "LastModel", "ResumableState"],
        "data_consistency": ["DataConsistency"],
        "degradation_report": ["DegradationReport"],
        "evaluation": ["EvaluationReport"],
        "feature_report": ["FeatureReport"],
        "history": ["LossHistory"],
        "kernel_report": ["KernelReport"],
        "spread": ["SpreadMap"],
        "translation_report": ["TranslationReport"],
        "validation": ["ValidationWithInitial"],
    },
)
