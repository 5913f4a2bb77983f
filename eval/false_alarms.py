"""How often the gate fails though nothing has changed: `python -m eval.false_alarms` prints the table of the docs.

Two evaluations of one model that differ by chance alone: each prompt has a chance of being answered right, drawn from a
distribution that makes two draws differ on the wanted share of prompts. A gate fails when any of its parts does.
"""

import random
from collections.abc import Sequence

from eval.gate import fall_of, reach
from posttrain.data.rows import Prompt

ROUNDS = 4000
"""Of the smallest gates; larger ones have fewer."""
SIZES = (100, 300, 1000)
"""Prompts of each suite."""
SUITES = (1, 4, 12)
DIFFERING = (0.05, 0.2, 0.4)
"""Share of prompts whose grade differs between two draws."""


def false_alarms(
    suites: int, size: int, differing: float, margin: float = 0.0, rounds: int = ROUNDS, seed: int = 0
) -> float:
    """The share of rounds in which the gate on `overall` and every suite fails, with nothing changed."""
    rng = random.Random(f"{suites} {size} {differing} {seed}")
    prompts = [
        Prompt(({"role": "user", "content": ""},), str(suite), id=f"{suite}-{i}")
        for suite in range(suites)
        for i in range(size)
    ]
    names = ["overall", *map(str, range(suites))]
    z = reach(len(names))
    return sum(_fails(rng, prompts, names, differing, margin, z) for _ in range(rounds)) / rounds


def _fails(
    rng: random.Random, prompts: Sequence[Prompt], names: Sequence[str], differing: float, margin: float, z: float
) -> bool:
    before, after = {}, {}
    for prompt in prompts:
        first = float(rng.random() < 0.5)
        before[prompt.id] = first
        after[prompt.id] = 1.0 - first if rng.random() < differing else first
    return any(upper < -margin for upper in fall_of(prompts, before, after, names, z).values())


def main() -> None:
    print("| suites | prompts each | " + " | ".join(f"{100 * d:g}% differ" for d in DIFFERING) + " |")
    print("|---|---|" + "---|" * len(DIFFERING))
    for suites in SUITES:
        for size in SIZES:
            rounds = max(400, ROUNDS * 1200 // (suites * size + 1200))
            found = [false_alarms(suites, size, differing, rounds=rounds) for differing in DIFFERING]
            print(f"| {suites} | {size:,} | " + " | ".join(f"{100 * share:.1f}%" for share in found) + " |", flush=True)


if __name__ == "__main__":
    main()
