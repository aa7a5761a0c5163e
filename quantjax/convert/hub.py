"""State dicts by name: a file, a repository of the Hugging Face hub, or the program that OpenAI publishes CLIP as."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from quantjax.convert.files import read_state_dict

HUB = "hf:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def read_weights(spec: str | Path) -> dict[str, np.ndarray]:
    """Read a state dict from a weight file, or from "hf:<owner>/<repository>" by way of the hub's cache.

    Besides the files of `files.read_state_dict`, .pt files may be TorchScript archives; torch.jit loads these, so take
    them from whom you trust. Raises as `files.read_state_dict`; for the hub ImportError when huggingface_hub is
    missing, ConnectionError when offline without a copy in the cache, FileNotFoundError when the repository or its
    weights do not exist.
    """
    path = download(str(spec).removeprefix(HUB)) if str(spec).startswith(HUB) else Path(spec)
    return _read_torchscript(path) if _is_torchscript(path) else read_state_dict(path)


def download(repository: str) -> Path:
    """Fetch a repository's weights from the Hugging Face hub into its cache; errors as `read_weights`."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise ImportError(
            f"reading {HUB}{repository} needs huggingface_hub: pip install huggingface_hub (or fetch "
            f"{HUB_FILES[0]} of https://huggingface.co/{repository} yourself and give its path)"
        ) from error
    offline: Exception | None = None
    for file in HUB_FILES:
        try:
            return Path(hf_hub_download(repository, file, local_files_only=offline is not None))
        except errors.LocalEntryNotFoundError as error:
            offline = error
        except errors.EntryNotFoundError:
            continue
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise FileNotFoundError(
                f"the Hugging Face hub has no repository {repository!r} that you may read; "
                "wanted hf:<owner>/<repository>, e.g. hf:facebook/dinov2-with-registers-base"
            ) from error
        except (errors.HfHubHTTPError, OSError) as error:
            offline = error
    if offline is None:
        raise FileNotFoundError(
            f"{HUB}{repository} holds neither {' nor '.join(HUB_FILES)}; give a file's path instead"
        )
    raise ConnectionError(
        f"{HUB}{repository} is not in the cache and the Hugging Face hub cannot be reached; go online, or fetch "
        f"{HUB_FILES[0]} of that repository on another machine and give its path"
    ) from offline


def _is_torchscript(path: Path) -> bool:
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return False
    with zipfile.ZipFile(path) as file:
        return any("/code/" in entry for entry in file.namelist())


def _read_torchscript(path: Path) -> dict[str, np.ndarray]:
    """The weights of a compiled program, the form in which OpenAI publishes CLIP."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs torch: pip install 'quantjax[torch]' (or convert the file to .npz or .safetensors)"
        ) from error
    state = torch.jit.load(path, map_location="cpu").state_dict()
    return {name: value.float().numpy() for name, value in state.items()}
