"""Many-shot contexts: a request behind up to hundreds of dialogs in which an assistant complies (P 5.4.3).

They stand in the user's message, as the attack has them (Anil et al. 2024): nothing in them is the assistant's turn, so
no choice of trained turns can train them.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from posttrain.data.read import read_rows
from posttrain.data.rows import Message, Row
from posttrain.errors import UserError
from synth.operators import user

Shot = tuple[str, str]
"""What a user asks, and what an assistant that complies says."""


def read_shots(path: Path, least: int, capability: str) -> list[Shot]:
    """The different demonstrations of a file of dialogs, in its order: the last request of each and its answer.

    Raises UserError where they are fewer than `least`.
    """
    rows: list[Row] = read_rows(path, "auto", capability)
    asked = (row for row in rows if len(row.messages) > 1 and row.messages[-2]["role"] == "user")
    found = dict.fromkeys((str(row.messages[-2]["content"]), str(row.messages[-1].get("content", ""))) for row in asked)
    shots = [shot for shot in found if all(text.strip() for text in shot)]
    if len(shots) < least:
        raise UserError(f"{path} holds {len(shots)} different demonstrations; give {least}, or lower shots: to that")
    return shots


def draw_count(rng: Random, most: int) -> int:
    """How many demonstrations: 1, 2, 4, … `most`, each power of two as likely, since their effect grows by powers."""
    counts = [2**power for power in range(most.bit_length()) if 2**power <= most]
    return rng.choice(sorted({*counts, most}))


def context(rng: Random, shots: Sequence[Shot], count: int, prompt: str) -> list[Message]:
    """`count` of the demonstrations before a prompt, as a transcript in the user's one message."""
    transcript = "\n\n".join(f"User: {asked}\nAssistant: {said}" for asked, said in rng.sample(shots, count))
    return [user(f"{transcript}\n\nUser: {prompt}\nAssistant:")]
