"""The operators that pipelines are written with: batches of items in, batches of items out. See docs/synthesis.md."""

from synth.operators.asking import ask, converse, hold, says, system, told, user
from synth.operators.checking import different, execute, in_language, judge, prefer, sift, verify
from synth.operators.items import Item
from synth.operators.parsing import Unreadable, as_json, choice, code, numbered, parse, tagged
from synth.operators.rewriting import revise, translate
from synth.operators.work import TEACHER, Work

__all__ = [
    "TEACHER", "Item", "Unreadable", "Work", "as_json", "ask", "choice", "code", "converse", "different", "execute",
    "hold", "in_language", "judge", "numbered", "parse", "prefer", "revise", "says", "sift", "system", "tagged", "told",
    "translate", "user", "verify",
]  # fmt: skip
