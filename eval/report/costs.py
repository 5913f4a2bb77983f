"""What a run took by stage (seconds, tokens, memory, money) beside what the plan expected; what it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.inspect.run import Run, Stage


@dataclass(frozen=True)
class Cost:
    """A stage, a round, or the whole; 0 where a stage has none of it. `money` is in the currency of the price, and
    tokens are expected only of stages in which a model ran."""

    id: str
    seconds: float
    tokens: int
    memory: int
    money: float
    expected_seconds: float = 0.0
    expected_tokens: int = 0
    expected_memory: int = 0
    expected_money: float = 0.0

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds if self.seconds else 0.0


def costs(run: Run) -> list[Cost]:
    """Every finished stage."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    return [_cost(stage, entries[stage.id]["expected"]) for stage in run.stages]


def _cost(stage: Stage, expected: Mapping[str, Any]) -> Cost:
    measured = stage.manifest.measured
    tokens = measured.get("tokens", 0)
    return Cost(
        stage.id, measured.get("seconds", 0.0), tokens,
        measured.get("device_memory", measured.get("memory", 0)), _money(stage.manifest.summary),
        expected["seconds"], expected["tokens"] if tokens else 0, expected["memory"], expected.get("cost", 0.0),
    )  # fmt: skip


def _money(summary: Mapping[str, Any]) -> float:
    """What served models charged: by model, or where a stage tells only that, by capability."""
    charged = summary.get("usage") or summary.get("spent") or {}
    return float(sum(part.get("cost", 0.0) for part in charged.values()))


def together(name: str, parts: list[Cost]) -> Cost:
    """The sum; memory is the largest."""
    return Cost(
        name, sum(p.seconds for p in parts), sum(p.tokens for p in parts), max((p.memory for p in parts), default=0),
        sum(p.money for p in parts), sum(p.expected_seconds for p in parts), sum(p.expected_tokens for p in parts),
        max((p.expected_memory for p in parts), default=0), sum(p.expected_money for p in parts),
    )  # fmt: skip


def by_round(parts: list[Cost]) -> list[tuple[str, list[Cost]]]:
    """The stages of the setup and of each round, by the name the plan has for it."""
    groups: dict[str, list[Cost]] = {}
    for part in parts:
        place = part.id.partition("/")[0]
        groups.setdefault("setup" if place == "setup" else place.replace("-", " "), []).append(part)
    return list(groups.items())


@dataclass(frozen=True)
class Made:
    """A stage with what identifies it: its key, what it was made from, and its settings."""

    id: str
    module: str
    key: str
    content: str
    seed: int | None
    source_hash: str
    parents: tuple[str, ...]
    config: Mapping[str, Any]


def lineage(run: Run) -> list[Made]:
    """Every finished stage in the order they ran."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    return [_made(stage, entries[stage.id]) for stage in run.stages]


def _made(stage: Stage, entry: Mapping[str, Any]) -> Made:
    manifest = stage.manifest
    parents = [
        f"{name}: {item.get('id') or item['source']} {item.get('content') or item.get('fingerprint') or ''}"
        for name, value in manifest.parents.items()
        for item in (value if isinstance(value, list) else [value])
    ]
    return Made(
        stage.id, manifest.stage, manifest.key, manifest.content, entry.get("seed"), manifest.source_hash,
        tuple(parents), manifest.config,
    )  # fmt: skip


def ancestry(run: Run, id: str) -> list[tuple[int, str]]:
    """The models that a checkpoint goes back to, with their depth: stages by their ids, others by where they came
    from."""
    entries = {entry["id"]: entry for entry in run.plan["stages"]}
    found: list[tuple[int, str]] = []
    while id in entries and (0 if not found else found[-1][0]) < len(entries):
        found.append((len(found), id))
        inputs = entries[id]["inputs"]
        kept = {stage.id: stage.manifest.summary.get("kept") for stage in run.stages}.get(id)
        id = str(inputs.get("previous" if kept == "previous" else "candidate") or inputs.get("init") or "")
    return [*found, (len(found), id)] if id else found


def versions(run: Run) -> list[tuple[str, tuple[str, ...]]]:
    """Package, or `device` → the versions that the stages ran with; more than one where the run went on elsewhere."""
    found: dict[str, dict[str, None]] = {}
    for stage in run.stages:
        found.setdefault("device", {})[stage.manifest.measured.get("device", "unknown")] = None
        for name, version in stage.manifest.versions.items():
            found.setdefault(name, {})[version] = None
    return [(name, tuple(own)) for name, own in sorted(found.items())]
