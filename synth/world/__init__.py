"""The procedural world of the quick start: four capabilities of tasks whose answers are known.

Torch-free. `make` draws one example; `heldout` and `seeds` draw many.
"""

import random
from types import ModuleType
from typing import Any

from posttrain.data.rows import Prompt
from posttrain.errors import UserError
from synth.capabilities import WORDINGS
from synth.prompts import operator_prompt
from synth.world import instructions, long_context, multilingual, tool_use
from synth.world.base import Example, Spec, Split, split
from synth.world.base import split as split_of

CAPABILITIES: dict[str, ModuleType] = {
    module.CAPABILITY: module for module in (tool_use, multilingual, long_context, instructions)
}

__all__ = [
    "CAPABILITIES", "Example", "Spec", "Split", "capability_of", "example", "faithful", "heldout", "make",
    "operator_text", "prompt_from", "seeds", "split",
]  # fmt: skip


def capability_of(name: str) -> ModuleType:
    if name not in CAPABILITIES:
        raise UserError(f"the world has no capability {name!r}; it has {', '.join(CAPABILITIES)}")
    return CAPABILITIES[name]


def example(spec: Spec, rng: random.Random) -> Example:
    """A spec in the world's own words."""
    module = capability_of(spec["capability"])
    return Example(module.build(spec, module.state(spec, rng)), module.gold(spec), spec)


def make(capability: str, rng: random.Random, split: Split, level: int = 1, **options: Any) -> Example:
    """A random example on one side of the split; `options` go to the capability's `draw`."""
    module = capability_of(capability)
    while True:
        drawn = example(module.draw(rng, level, **options), rng)
        if split_of(drawn.prompt) == split:
            return drawn


def heldout(
    capability: str, n: int, seed: int, levels: tuple[int, ...] = (1,), lengths: tuple[int, ...] | None = None
) -> list[Prompt]:
    """`n` different held-out prompts with checks, the levels in turn; `lengths` in tokens for long_context."""
    rng = random.Random(f"heldout {capability} {seed}")
    options = {"lengths": lengths} if lengths and capability == long_context.CAPABILITY else {}
    kept: dict[str, Prompt] = {}
    while len(kept) < n:
        drawn = make(capability, rng, "heldout", levels[len(kept) % len(levels)], **options).prompt
        kept.setdefault(drawn.id, drawn)
    return list(kept.values())


def seeds(capability: str, n: int, seed: int, level: int = 1, **options: Any) -> list[Spec]:
    """`n` specs for a teacher to word. A text made from them must still be on the training side: ask `split`."""
    rng = random.Random(f"seeds {capability} {seed} {level}")
    return [capability_of(capability).draw(rng, level, **options) for _ in range(n)]


def operator_text(spec: Spec) -> str:
    """What the teacher is asked, to word the spec as a user's prompt."""
    template, _ = WORDINGS[spec["capability"]]
    return operator_prompt(template, **capability_of(spec["capability"]).operator(spec))


def faithful(spec: Spec, text: str) -> bool:
    """Does a teacher's text still state the spec, so that the spec's check holds for it?"""
    return bool(capability_of(spec["capability"]).faithful(spec, text))


def prompt_from(spec: Spec, text: str) -> Prompt:
    """The prompt of a spec in a teacher's words, with the check that comes from the spec."""
    built: Prompt = capability_of(spec["capability"]).build(spec, text)
    return built
