"""Fetching a model from the Hugging Face hub: which of its files, and what to say when it fails."""

import difflib
import glob
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from matura.core.aliases import HubReference
from matura.core.errors import ModelNotFound
from matura.core.files import is_disk_full
from matura.core.modelfiles import ADVICE, MODEL_SUFFIXES, PICKLE_SUFFIXES, ggufs, is_model_file

# Copies of the same weights for other engines.
_OTHER_ENGINES = ("onnx", "openvino", "original", "coreml", "flax")

CheckDisk = Callable[[int, str], None]  # as Workspace.check_disk


def fetch_hub(reference: HubReference, check_disk: CheckDisk) -> Path:
    """Bring a repository's model into the hub's own cache; returns its folder, or its (first) GGUF file.

    Without a network, what the cache holds is used. Raises ModelNotFound, and ArtifactError by `check_disk`.
    """
    import huggingface_hub

    what = f"hf:{reference.repo}" + (f"@{reference.revision}" if reference.revision else "")
    sizes, revision = _listing(reference, what)
    if sizes is None:
        names = [f"*{suffix}" for suffix in MODEL_SUFFIXES]
    else:
        chosen = choose(list(sizes), reference.file, what)
        check_disk(sum(sizes[name] for name in chosen), what)
        names = [glob.escape(name) for name in chosen]
    try:
        folder = Path(
            huggingface_hub.snapshot_download(
                reference.repo,
                revision=revision,
                allow_patterns=names,
                ignore_patterns=[f"{folder}/*" for folder in _OTHER_ENGINES],
                local_files_only=sizes is None,
            )
        )
    except Exception as error:  # the client's transport raises its own types
        if is_disk_full(error):
            raise
        raise ModelNotFound(_unreachable(what, error, offline=sizes is None)) from error
    return _single(folder, reference, what)


def choose(names: list[str], file: str | None, what: str) -> list[str]:
    """Which files of a repository to fetch: the safetensors layout, else its only GGUF, or the `file` named.

    Raises ModelNotFound when there is nothing to read, or several GGUF files and none is named.
    """
    readable = [name for name in names if is_model_file(name) and name.split("/")[0] not in _OTHER_ENGINES]
    weights = [name for name in readable if name.endswith(".safetensors")]
    models = ggufs(readable)
    others = {name for files in models.values() for name in files}
    settings = [name for name in readable if name not in weights and name not in others]
    if file is not None:
        if file not in models:
            close = difflib.get_close_matches(file, models, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(models) or 'none'}."
            raise ModelNotFound(f"{what} has no GGUF file {file}; {hint}")
        return [*settings, *models[file]]
    if weights:
        # Some repositories hold the same weights a second time, in one file for another library.
        whole = [name for name in weights if not PurePosixPath(name).name.startswith("consolidated")]
        return [*settings, *(whole or weights)]
    if len(models) == 1:
        return [*settings, *next(iter(models.values()))]
    if models:
        listed = "\n".join(f"  hf:{what.removeprefix('hf:').split('@')[0]}/{name}" for name in models)
        raise ModelNotFound(f"{what} has {len(models)} GGUF models; name one:\n{listed}")
    if any(PurePosixPath(name).suffix in PICKLE_SUFFIXES for name in names):
        raise ModelNotFound(f"{what} has its weights only as pickle files, which can run code. {ADVICE}")
    raise ModelNotFound(f"{what} has no weights that can be read. {ADVICE}")


def _listing(reference: HubReference, what: str) -> tuple[dict[str, int] | None, str | None]:
    """Files and sizes of a repository and their commit; None for the files when it cannot be reached."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        info: Any = huggingface_hub.HfApi().model_info(
            reference.repo, revision=reference.revision, files_metadata=True
        )
    except errors.GatedRepoError as error:
        raise ModelNotFound(
            f"{what} is gated: accept its terms on its page of the hub, then log in with `hf auth login` or "
            "set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"The hub has no model {reference.repo}, or it is private (then log in with `hf auth login`)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{reference.repo} has no revision {reference.revision!r} on the hub.") from error
    except Exception:  # no network, in one of the transport's many ways: the cache may still have it
        return None, reference.revision
    return {file.rfilename: file.size or 0 for file in info.siblings or []}, info.sha


def _unreachable(what: str, error: Exception, offline: bool) -> str:
    if offline:
        return (
            f"Cannot fetch {what}: the hub cannot be reached, and the local cache does not have it. "
            "Check the network and the name, or give the path of a copy you have."
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"Cannot fetch {what}: {reason}\nTry again: what has arrived already is kept."


def _single(folder: Path, reference: HubReference, what: str) -> Path:
    if reference.file is not None:
        if not (folder / reference.file).is_file():
            raise ModelNotFound(f"{what}: {reference.file} did not arrive; try again.")
        return folder / reference.file
    found = list(ggufs(str(path) for path in folder.rglob("*.gguf*")))
    if not any(folder.rglob("*.safetensors")) and len(found) == 1:
        return Path(found[0])
    return folder
