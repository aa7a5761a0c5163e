"""State dicts by name: a file, or a repository of the Hugging Face hub."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np

from quantjax.convert import files
from quantjax.convert.files import Checkpoint, Say

HUB = "hf:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def read_weights(spec: str | Path, key: str | None = None, say: Say = warnings.warn) -> dict[str, np.ndarray]:
    """The arrays of `read_checkpoint`; what it chose between several networks goes to `say`. Raises as it does."""
    found = read_checkpoint(spec, key)
    if found.note:
        say(found.note)
    return found.arrays


def read_checkpoint(spec: str | Path, key: str | None = None) -> Checkpoint:
    """Read one network from a weight file, or from "hf:<owner>/<repository>" by way of the hub's cache.

    `key` is that of `files.read_checkpoint`. Raises as that, and ValueError for a TorchScript archive, as
    which OpenAI publishes CLIP: it is a program, and no program is read here. For the hub ImportError when
    huggingface_hub is missing, ConnectionError when offline without a copy in the cache, FileNotFoundError when the
    repository or its weights do not exist.
    """
    path = path_of(spec)
    if _is_torchscript(path):
        raise ValueError(
            f"{path} is a TorchScript program; wanted weights alone. If you trust it, save them with "
            "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pt') and give that file, or take the same weights "
            "from the hub, e.g. hf:openai/clip-vit-base-patch16"
        )
    return files.read_checkpoint(path, key)


def path_of(spec: str | Path) -> Path:
    """The file that is meant, fetched where it is one of the hub; errors as `read_weights`."""
    return download(str(spec).removeprefix(HUB)) if str(spec).startswith(HUB) else Path(spec)


def download(repository: str) -> Path:
    """Fetch a repository's weights from the Hugging Face hub into its cache; errors as `read_weights`."""
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise ImportError(
            f"reading {HUB}{repository} needs huggingface_hub: pip install 'quantjax[hub]' (or fetch "
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
    try:
        with zipfile.ZipFile(path) as file:
            return any("/code/" in entry for entry in file.namelist())
    except Exception:  # no zip file, or a damaged one, which the reader then names
        return False
