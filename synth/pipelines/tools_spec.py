"""`from: tools`: dialogs with the core tools, every call of which is run: python, calculator, search. Torch-free."""

import math
from collections.abc import Mapping
from importlib.metadata import distributions
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from posttrain.stages import Amount
from synth.sources import Expected, PipelineSpec, some_share
from synth.tools.spec import ToolDialogsConfig

CoreTool = Literal["python", "calculator", "search"]
FileType = Literal["csv", "tsv", "json", "jsonl", "txt", "html", "xml", "py", "docx", "xlsx", "pptx"]
Kind = Literal["single", "multi", "analysis", "file", "unneeded", "missing", "inactive"]
OFFICE = {"docx", "xlsx", "pptx"}
"""File types that need packages."""
OVER_ASK = 1.6
"""Requests for one dialog that is wanted; of single calls the paper filtered about 30% (P 4.3.5)."""
STEPS = {"single": 2, "multi": 4, "analysis": 3, "file": 3, "unneeded": 1, "missing": 1, "inactive": 1}
"""Messages of the model that a dialog of each kind has, for estimates."""
REQUEST_TOKENS, PROMPT_TOKENS, STEP_TOKENS = 300, 500, 120
"""A request for requests; a system prompt with tools and a user's message; a message of the model with its result."""


class ToolsConfig(ToolDialogsConfig):
    """Single and multi-step dialogs, data analysis, file generation, and dialogs in which no tool is to be called."""

    tools: tuple[CoreTool, ...] = Field(("python", "calculator"), min_length=1)
    """The core tools. `python` needs a sandbox, `search` a `corpus`."""
    corpus: str = ""
    """A folder of .txt and .md files, or a file of records with `text` and maybe `title`, seen from the recipe's
    folder, for `search`; empty for none."""
    files: str = ""
    """A folder of csv, tsv, json, jsonl, txt, html, xml and py files, and with `posttrain[files]` of docx, xlsx, pptx
    and pdf files, that users of kind `analysis` have uploaded; empty for none, and then there is no such dialog."""
    file_types: tuple[FileType, ...] = Field(("csv", "tsv", "json", "jsonl", "txt", "html", "xml", "py"), min_length=1)
    """What users of kind `file` ask for, evenly; docx, xlsx and pptx need `posttrain[files]`."""
    kinds: Annotated[dict[Kind, float], AfterValidator(some_share)] = {
        "single": 0.35, "multi": 0.25, "analysis": 0.1, "file": 0.1, "unneeded": 0.1, "missing": 0.05, "inactive": 0.05,
    }  # fmt: skip
    """Shares of the dialogs: one call; two or more with words between; a question on an uploaded file; a file to be
    made; tools that are not needed; the needed tool not among those that are on; no tool on."""
    batch: int = Field(5, ge=1)
    """Requests that the teacher writes at a time."""
    seeds: str = ""
    """A prompts JSONL, some of which are shown as examples of what users ask of tools; empty for none."""
    shots: int = Field(3, ge=1)
    """Of those shown at a time."""
    most_calls: int = Field(6, ge=2)
    """Messages with calls in a row after which a dialog is given up."""
    builtin: float = Field(0.0, ge=0, le=1)
    """Share of the dialogs without a pair that are told with Llama 3.1's built-in tools (code_interpreter,
    brave_search, wolfram_alpha); the template of the model that is trained must have them."""
    like: float = Field(0.7, gt=0, le=1)
    """Share of common pairs of words at which a request is like another one, and is dropped."""

    @model_validator(mode="after")
    def _fits(self) -> "ToolsConfig":
        if ("search" in self.tools) != bool(self.corpus):
            raise ValueError("search and corpus go together: name a corpus and put search among the tools, or neither")
        if not any(self.shares.values()):
            raise ValueError("none of the kinds can be made: analysis needs files: and python, file needs python")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The kinds that can be made with the tools and files that there are."""
        able = {"analysis": bool(self.files) and "python" in self.tools, "file": "python" in self.tools,
                "missing": len(self.tools) > 1}  # fmt: skip
        return {kind: share for kind, share in self.kinds.items() if able.get(kind, True)}


def estimate(capability: str, config: ToolsConfig, sizes: Mapping[str, Any]) -> Expected:
    """Requests in batches, then as many messages for each as its kind has, and what judges grade."""
    tries = config.rows * OVER_ASK
    shares = config.shares
    steps = sum(STEPS[kind] * share for kind, share in shares.items()) / sum(shares.values())
    batches = math.ceil(tries / config.batch)
    graded = tries if config.least else 0
    pairs = int(config.pairs * config.rows / 2)
    dialog, bare = PROMPT_TOKENS + int(steps * STEP_TOKENS), config.rows - pairs if config.sampled else 0
    read = batches * REQUEST_TOKENS + tries * steps * dialog + (graded + 6 * pairs) * dialog
    written = tries * STEP_TOKENS * (steps + 0.3) + (graded + 3 * pairs) * STEP_TOKENS
    return Expected(
        int(batches + tries * steps + graded + 6 * pairs), read, written,
        {
            "prompts": Amount(bare, bare * PROMPT_TOKENS),
            "rows": Amount(config.rows, config.rows * dialog),
            "preferences": Amount(pairs, pairs * (dialog + STEP_TOKENS)),
        },
    )  # fmt: skip


def _packages(config: ToolsConfig) -> str:
    """Others may read a file otherwise."""
    names = ("openpyxl", "pypdf", "python-docx", "python-pptx") if config.files or OFFICE & {*config.file_types} else ()
    found = {one.metadata["Name"].lower(): one.version for name in names for one in distributions(name=name)}
    return " ".join(f"{name} {version}" for name, version in sorted(found.items()))


PIPELINE = PipelineSpec(
    module="synth.pipelines.tools",
    version=2,
    Config=ToolsConfig,
    estimate=estimate,
    templates=lambda capability, config: {"tools/requests": ("count", "subject", "what", "material", "examples")},
    files=lambda config: {"seeds": config.seeds} if config.seeds else {},
    data=lambda config: {name: path for name, path in (("corpus", config.corpus), ("uploads", config.files)) if path},
    pairs=lambda config: config.pairs > 0,
    depends=_packages,
)
