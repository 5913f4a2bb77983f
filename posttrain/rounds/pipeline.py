"""What stage names mean, in the order of one round, and where the stages of a child recipe stand in its parent's."""

from collections.abc import Iterator
from typing import Any

from posttrain.rounds.values import Values, merge

STAGES = {
    "heldout": "synth.heldout",
    "read": "posttrain.data.read",
    "synthesize": "synth.generate",
    "sample": "reward.sample",
    "annotate": "reward.annotate",
    "reward": "reward.train",
    "score": "reward.score",
    "select": "reward.select",
    "clean": "synth.curate.clean",
    "dedupe": "synth.curate.dedupe",
    "decontaminate": "synth.curate.decontaminate",
    "quality": "synth.curate.quality",
    "difficulty": "synth.curate.difficulty",
    "topics": "synth.curate.topics",
    "semantic_dedupe": "synth.curate.semantic_dedupe",
    "mix": "posttrain.data.mix",
    "mix_pairs": "posttrain.data.mix",
    "sft": "posttrain.train.sft",
    "reference": "posttrain.train.reference",
    "dpo": "posttrain.train.dpo",
    "average": "posttrain.train.average",
    "contamination": "eval.contamination",
    "evaluate": "eval.run",
    "gate": "eval.gate",
}
"""What a stage's key means without a `stage:` of its own."""
SECTIONS = ("setup", "round")
MEASURES = "contamination"
"""The first of the stages that look at what the others made; a stage of a user's own comes before them."""


def lay_over(base: Values, changes: Values) -> list[tuple[str, str, Any]]:
    """Lay a child's keys, or those of `--set`, over its parent's, in place.

    A null takes a key away: a stage goes with its overrides, and an override of null leaves the stage out of that
    round. Overrides of rounds that are no more go too. An added stage comes before the stage it names with `before:`
    (so does an old one), else at its place in the order of STAGES. Gives (section, stage, before) of each that names no
    such stage.
    """
    before = {section: dict(_named(changes.get(section))) for section in SECTIONS}
    known = {section: list(_mapping(base.get(section))) for section in SECTIONS}
    _drop_overrides(base, changes)
    merge(base, changes)
    for number, stages in _mapping(changes.get("overrides")).items():
        left_out = {stage: None for stage, change in _mapping(stages).items() if change is None}
        if left_out:
            base["overrides"].setdefault(number, {}).update(left_out)
    lost: list[tuple[str, str, Any]] = []
    for section in SECTIONS:
        if isinstance(base.get(section), dict):
            base[section] = _arranged(base[section], known[section], before[section])
            lost += [(section, stage, at) for stage, at in before[section].items() if at not in list(base[section])]
    return lost


def _named(stages: Any) -> Iterator[tuple[str, Any]]:
    """Takes `before` out of the stages that have it."""
    for name, values in _mapping(stages).items():
        if isinstance(values, dict) and "before" in values:
            yield name, values.pop("before")


def _drop_overrides(base: Values, changes: Values) -> None:
    """Forget the parent's overrides of stages and rounds that the child takes away."""
    gone = [name for name, values in _mapping(changes.get("round")).items() if values is None]
    rounds = changes.get("rounds")
    overrides = _mapping(base.get("overrides"))
    for number in list(overrides):
        if isinstance(rounds, int) and number.isdecimal() and int(number) > rounds:
            del overrides[number]
            continue
        for name in gone:
            _mapping(overrides[number]).pop(name, None)


def _arranged(stages: Values, known: list[str], before: dict[str, Any]) -> Values:
    order = [name for name in stages if name in known and name not in before]
    for name in stages:
        if name not in order:
            order.insert(_place(name, stages, order, before.get(name)), name)
    return {name: stages[name] for name in order}


def _place(name: str, stages: Values, order: list[str], before: Any) -> int:
    """Index in `order` where a stage goes: in front of the one it names, or of the first that comes after its kind."""
    if before in order:
        return order.index(before)
    later = (i for i, other in enumerate(order) if _rank(other, stages[other]) > _rank(name, stages[name]))
    return next(later, len(order))


def _rank(name: str, values: Any) -> float:
    module = _mapping(values).get("stage", STAGES.get(name))
    modules = list(STAGES.values())
    return modules.index(module) if module in modules else modules.index(STAGES[MEASURES]) - 0.5


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
