"""`from: multilingual`: dialogs in eight languages from four kinds of sources (P 4.3.2). Torch-free."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.data.rows import LANGUAGES
from posttrain.stages import Amount
from synth.pipelines.world_spec import known_languages
from synth.sources import Expected, PipelineSpec, SourceConfig

Kind = Literal["human", "tasks", "native", "reasoning"]
SHARES: dict[Kind, float] = {"human": 2.4, "tasks": 44.2, "native": 18.8, "reasoning": 34.6}
"""P 4.3.2, in percent: human annotations, other NLP tasks, rejection sampled, translated reasoning."""
OVER_ASK = 1.5
"""Prompts asked for one that is wanted."""
PROMPT_TOKENS, ANSWER_TOKENS, REQUEST_TOKENS = 231, 290, 400
"""P table 7, multilingual: tokens in context and in the final response. A request with its examples."""


class MultilingualConfig(SourceConfig):
    """Dialogs in eight languages."""

    kinds: dict[Kind, float] = SHARES
    """What the rows are, by weight; the default is the paper's. A kind without its file is a fault: leave it out."""
    human: str = ""
    """For `human`: dialogs that people wrote, in any form that is read (docs/rows.md), each with `language`."""
    tasks: str = ""
    """For `tasks`: JSONL of NLP tasks, put into dialogs by templates. Either `question`, `answer` and `language`, with
    `choices` (then `answer` is one of them) and with a `text` to answer from or without; or `source`,
    `source_language`, `target` and `target_language`: parallel text."""
    seeds: str = ""
    """For `native`: a prompts JSONL, each with its `language`; those of one language are the examples for new ones.
    Romanised Hindi stays romanised."""
    reasoning: str = ""
    """For `reasoning`: English dialogs on quantitative problems, question and answer, to be translated into the other
    languages; one whose numbers change is dropped."""
    languages: tuple[str, ...] = LANGUAGES
    """Languages of what is made, in equal parts; of the files, others are left out."""
    temperature: float | tuple[float, float] = (0.2, 1.0)
    """Of the answers to new prompts: of a range each draws its own, as in the paper's early rounds; 0.6 in the last."""
    shots: int = Field(3, ge=1)
    """Seed prompts shown in a request."""
    batch: int = Field(5, ge=1)
    """New prompts asked for in a request."""

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        return known_languages(languages)

    @model_validator(mode="after")
    def _has_its_files(self) -> "MultilingualConfig":
        if not any(self.kinds.values()) or min(self.kinds.values()) < 0:
            raise ValueError("give the kinds weights of 0 or more, one of them more")
        lacking = [FILES[kind] for kind, weight in self.kinds.items() if weight and not getattr(self, FILES[kind])]
        if lacking:
            raise ValueError(f"name a file at {' and '.join(lacking)}, or leave the kind out of kinds")
        return self


FILES: dict[Kind, str] = {"human": "human", "tasks": "tasks", "native": "seeds", "reasoning": "reasoning"}
"""The field that names each kind's file."""


def files(config: MultilingualConfig) -> Mapping[str, str]:
    return {FILES[kind]: getattr(config, FILES[kind]) for kind, weight in config.kinds.items() if weight}


def estimate(capability: str, config: MultilingualConfig, sizes: Mapping[str, Any]) -> Expected:
    """A request for some prompts and an answer each; for a problem a translation of both its parts."""
    whole = sum(config.kinds.values())
    share = {kind: OVER_ASK * config.rows * weight / whole for kind, weight in config.kinds.items()}
    native, translated = share.get("native", 0.0), share.get("reasoning", 0.0)
    requests = math.ceil(native / config.batch)
    read = requests * REQUEST_TOKENS + native * PROMPT_TOKENS + translated * (PROMPT_TOKENS + ANSWER_TOKENS)
    written = (native + translated) * (PROMPT_TOKENS + ANSWER_TOKENS)
    prompts = int(native / OVER_ASK)
    return Expected(
        int(requests + native + 2 * translated), read, written,
        {
            "prompts": Amount(prompts, prompts * PROMPT_TOKENS),
            "rows": Amount(config.rows, config.rows * (PROMPT_TOKENS + ANSWER_TOKENS)),
        },
    )  # fmt: skip


PIPELINE = PipelineSpec(
    module="synth.pipelines.multilingual",
    version=2,
    Config=MultilingualConfig,
    estimate=estimate,
    templates=lambda capability, config: {
        "multilingual/native_prompts": ("count", "language", "examples"),
        "common/translate": ("text", "language"),
    },
    files=files,
)
