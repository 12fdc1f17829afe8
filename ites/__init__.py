"""ITES: 3D human pose from 2D alone, by an invariant teacher and an equivariant student."""

import importlib

__version__ = "0.2.0.dev0"

# Where each public name lives; imported when first asked for, so that `import ites` stays quick.
_HOMES = {
    "HUMAN36M": "pose.skeleton",
    "ItesError": "errors",
    "Lifter": "inference.stream",
    "PoseStore": "data.store",
    "PoseStoreWriter": "data.store",
    "RotationDraw": "ops",
    "Skeleton": "pose.skeleton",
    "Student": "models",
    "Teacher": "models",
    "evaluate": "evaluation.evaluate",
    "fit": "workflows.fit",
    "lift": "inference.lift",
    "load_model": "runs.checkpoint",
    "train": "training.run",
    "view": "show.view",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ites' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ites.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
