"""Models of the Hugging Face hub by name."""

import re
from pathlib import Path

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FILES = ["*.json", "*.safetensors", "pytorch_model*.bin", "*.tiktoken"]  # no code


def is_name(text: str) -> bool:
    """Whether a text may be the hub's `owner/name`."""
    return _NAME.fullmatch(text) is not None


def found_model(name: str | Path) -> Path:
    """Return a model's folder: `name` itself, or where the hub's `owner/name` was downloaded to.

    Raises ValueError when it is neither a folder nor a name that the hub, or its cache, has.
    """
    if Path(name).exists() or not is_name(str(name)):
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=_FILES))
    except Exception as error:  # what a server answers, or that there is none
        raise ValueError(f"{name} is no folder here, and the hub does not have it: {error}") from None
