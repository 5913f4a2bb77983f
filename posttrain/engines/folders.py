"""The folder of a model: as it is, or a hub model's snapshot in the hub's own cache. No torch."""

from pathlib import Path

from posttrain.errors import UserError

PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.md")
"""What a checkpoint needs, its licence and its card; no pickles."""


def model_folder(model: str | Path, revision: str | None = None) -> Path:
    """A local folder as it is; a hub name is looked up in, or fetched into, the hub's cache.

    Raises UserError where the hub does not give it.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), revision=revision, allow_patterns=list(PATTERNS)))
    except (OSError, ValueError) as error:  # of the network, of the hub, and of a cache that lacks it
        why = " ".join(str(error).split())[:200]
        raise UserError(
            f"model {model} is neither a folder nor in the hub's cache, and cannot be fetched ({why}); "
            "download it where there is a network, or name its folder"
        ) from error
