"""How long a row a model can read: the positions its config names, and whether its rotary settings go with them."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from posttrain.engines.loading import check_folder
from posttrain.errors import UserError

UNSCALED_POSITIONS, UNSCALED_THETA = 8_192, 500_000.0
"""What Llama 3 was trained with before its context was stretched by `rope_type: llama3` (Llama 3, 3.4.2). A Llama that
names more positions at this base, and no scaling, has lost it, as some tools that write checkpoints do."""
TRAINED = "original_max_position_embeddings"
"""A config that has it says in so many words how far its unscaled positions were trained."""


def context(path: str | Path) -> int:
    """Tokens of the longest row that the model of a folder or hub name was trained for.

    Raises UserError for rotary settings that cannot be those the model was trained with.
    """
    check_folder(path)
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    positions, rope = int(config.max_position_embeddings), rotary(config)
    written = _written(path)
    if (written.get("rope_scaling") or {}) and rope["rope_type"] == "default":
        raise UserError(
            f"{_config(path)} has a rope_scaling that transformers does not read; write it as rope_parameters"
        )
    bare = config.model_type == "llama" and rope["rope_type"] == "default" and rope.get("rope_theta") == UNSCALED_THETA
    if bare and positions > UNSCALED_POSITIONS and TRAINED not in rope:
        raise UserError(
            f"{_config(path)} names {positions:,} positions at rope_theta {UNSCALED_THETA:,.0f} without rope scaling: "
            "it was lost. Put the rope_scaling of the model's maker back, or, if the model was trained so, add "
            f"{TRAINED} to rope_parameters"
        )
    return positions


def rotary(config: Any) -> dict[str, Any]:
    """The rotary settings of a loaded config, with `rope_type` at least."""
    found = getattr(config, "rope_parameters", None) or {}
    return {"rope_type": "default", **found}


def same_rotary(one: str | Path, other: str | Path) -> None:
    """Raise UserError where two models that score the same rows turn their positions differently."""
    first, second = (rotary(AutoConfig.from_pretrained(str(path), trust_remote_code=False)) for path in (one, other))
    if first != second:
        raise UserError(
            f"{_config(one)} has the rotary settings {json.dumps(first, sort_keys=True)}, and {_config(other)} has "
            f"{json.dumps(second, sort_keys=True)}; train from models of one family, or mend the one that lost them"
        )


def _config(path: str | Path) -> str:
    return f"the config.json of {path}"


def _written(path: str | Path) -> dict[str, Any]:
    """The config.json as it is written."""
    return dict(PreTrainedConfig.get_config_dict(str(path))[0])
