"""Foreign checkpoints -> trees of ours: the only room that knows foreign names.

- `files`         weight files in any of three formats; our own trees as safetensors; `torch_files` those of PyTorch
- `wrappings`     the one rule for what stands around and before a network's names
- `hub`           the same by name, from the Hugging Face hub
- `classifiers`   WideResNets and CIFAR ResNets
- `transformers`  DINOv2, CLIP, Swin and our own, as backbones of a segmentor; `probes` the same below a linear layer
- `flows`         FrEIA's coupling flows

What stands here is imported when it is first used, so that the package itself loads neither JAX nor Flax.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "load_classifier": "classifiers",
    "read_backbone": "transformers",
    "read_metadata": "files",
    "read_safetensors": "files",
    "read_state_dict": "files",
    "read_weights": "hub",
    "to_backbone_variables": "transformers",
    "to_flow": "flows",
    "to_probe_variables": "probes",
    "to_variables": "classifiers",
    "write_safetensors": "files",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
