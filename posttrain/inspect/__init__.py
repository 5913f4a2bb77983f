"""Looking into a run, from a notebook or the command line: its tables, and where a row came from.

from posttrain.inspect import load, conversation
run = load("runs/quickstart")
run.frame("responses", stage="round-1/sample").sort_values("reward")
conversation(run, "7f3a09")
"""

from posttrain.inspect.frames import candidate_table, lengths, mixes, plot_lengths, plot_mix, plot_scores
from posttrain.inspect.html import Html, candidates, conversation, lineage, preflight
from posttrain.inspect.run import Found, Run, Stage, load, load_at

__all__ = [
    "Found",
    "Html",
    "Run",
    "Stage",
    "candidate_table",
    "candidates",
    "conversation",
    "lengths",
    "lineage",
    "load",
    "load_at",
    "mixes",
    "plot_lengths",
    "plot_mix",
    "plot_scores",
    "preflight",
]
