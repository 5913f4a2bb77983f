"""How answers move that no grade sees: their length, refusals, language and repetition, pair by pair."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from eval.scorers.behaviour import refuses
from eval.statistics import DRAWS, SEED, paired_change
from posttrain.checks.intervals import Z
from posttrain.checks.language import UNDETERMINED, identify
from posttrain.data.rows import LANGUAGES, Prompt, Response

RUN = 4
"""Words of a run that counts as repeated when the answer has had it before."""

SURE = 0.9
"""How probable a language must be to count: of a few words, names, or a call's JSON the likeliest is often wrong."""


def _tokens(prompt: Prompt, response: Response) -> float | None:
    return float(response.tokens)


def _refuses(prompt: Prompt, response: Response) -> float | None:
    """Not looked at where a refusal is what is wanted."""
    wanted = prompt.check is not None and prompt.check.args.get("wanted") is True
    return None if wanted else float(refuses(response.text))


def in_language(prompt: Prompt, response: Response) -> bool | None:
    """Whether an answer is in its prompt's language; None where it is too short, or no prose, to be sure."""
    found, probability = identify(response.text)
    unsure = found == UNDETERMINED or probability < SURE
    return None if unsure or prompt.language not in LANGUAGES else found == prompt.language


def _other_language(prompt: Prompt, response: Response) -> float | None:
    same = in_language(prompt, response)
    return None if same is None else float(not same)


def repetition(text: str) -> float:
    """The share of runs of RUN words that stand earlier in the text; 0 of a shorter one."""
    words = text.split()
    runs = list(zip(*(words[start:] for start in range(RUN)), strict=False))
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


MEASURES: dict[str, Callable[[Prompt, Response], float | None]] = {
    "length": _tokens,
    "refusals": _refuses,
    "language": _other_language,
    "repetition": lambda prompt, response: repetition(response.text),
}
"""Measure → its value for one answer, None where it says nothing."""


def drift(
    measure: str, prompts: Iterable[Prompt], before: Mapping[str, Response], after: Mapping[str, Response], z: float = Z
) -> dict[str, Any]:
    """The mean before and after, over prompts that have both, and the change with its interval: of `length` relative to
    the mean before, else of shares. Transcripts of dialogs are left out."""
    old, new = [], []
    for prompt in prompts:
        if prompt.id in before and prompt.id in after and not (prompt.check and prompt.check.name == "dialog"):
            values = MEASURES[measure](prompt, before[prompt.id]), MEASURES[measure](prompt, after[prompt.id])
            if values[0] is not None and values[1] is not None:
                old.append(values[0])
                new.append(values[1])
    means = {"before": fmean(old) if old else 0.0, "after": fmean(new) if new else 0.0}
    if measure == "length":
        return {**means, **_relative(old, new, z)}
    return {**means, **asdict(paired_change(old, new, z=z))}


def _relative(old: list[float], new: list[float], z: float) -> dict[str, Any]:
    """after / before − 1 of the means, with the interval of the log ratio from resampled pairs."""
    if not old or not sum(old) or not sum(new):
        return {"n": len(old), "change": 0.0, "low": -1.0, "high": math.inf, "significant": False}
    pairs = np.array([old, new])
    rng = np.random.default_rng(SEED)
    draws = rng.integers(0, len(old), (DRAWS // 4, len(old)))
    sums = pairs[:, draws].sum(2) + 1e-9
    centre, spread = math.log(sum(new) / sum(old)), float(np.log(sums[1] / sums[0]).std())
    low, high = math.exp(centre - z * spread) - 1, math.exp(centre + z * spread) - 1
    return {"n": len(old), "change": math.exp(centre) - 1, "low": low, "high": high, "significant": low > 0 or high < 0}
