"""The scorers of suites: every verifier of the core, and those that only measuring needs."""

from eval.scorers.answers import ChoiceArgs, FinalNumberArgs, RecallArgs, choice, final_number, recall
from eval.scorers.behaviour import RefusalArgs, ShortAnswerArgs, refusal, short_answer
from eval.scorers.calling import AnyCallArgs, DialogArgs, any_call, dialog
from eval.scorers.ifeval import IfevalArgs, ifeval
from eval.scorers.reading import Reading
from posttrain.checks.verdict import Verifier
from posttrain.checks.verifiers import VERIFIERS

SCORERS: dict[str, Verifier] = {
    **VERIFIERS,
    "choice": Verifier(ChoiceArgs, choice),
    "final_number": Verifier(FinalNumberArgs, final_number),
    "recall": Verifier(RecallArgs, recall),
    "ifeval": Verifier(IfevalArgs, ifeval),
    "any_call": Verifier(AnyCallArgs, any_call),
    "dialog": Verifier(DialogArgs, dialog),
    "refusal": Verifier(RefusalArgs, refusal),
    "short_answer": Verifier(ShortAnswerArgs, short_answer),
}

__all__ = ["SCORERS", "Reading"]
