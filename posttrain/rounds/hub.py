"""Models of the hub at a pinned revision: fetched once into the hub's own cache, then read as the folder they are.

So no loader of a model, tokenizer or config needs to know of revisions, and none can take another by mistake.
"""

from posttrain.errors import UserError

READ = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
"""Files that are read of a model: config, weights, tokenizer and template."""
NOT_READ = ["*/*"]


def pinned_folder(name: str, revision: str) -> str:
    """The folder of a hub model at a commit, tag or branch. Raises UserError when it is neither there nor fetched."""
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(name, revision=revision, allow_patterns=READ, ignore_patterns=NOT_READ))
    except Exception as error:  # whatever network and hub raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"model {name} at revision {revision} cannot be fetched ({type(error).__name__}: {reason}); "
            "check the name, the revision and the network, or fetch it before"
        ) from error
