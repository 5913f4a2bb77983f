"""Mixing rows or pairs: shares by largest remainder, members by a seeded hash, so the order of inputs does not matter.

Two passes over the inputs: the first keeps numbers of every row (`catalogue`), the second moves the chosen rows
(`gather`), so that memory does not grow with the rows' texts.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.data.catalogue import Catalogue, Source, survey
from posttrain.data.gather import write_in_order
from posttrain.data.lengths import bucket, counted, estimated
from posttrain.data.mix_spec import ANY, INPUTS, MixConfig, Part
from posttrain.data.rows import content_id
from posttrain.data.shares import largest_remainder, most_in_proportion
from posttrain.data.tables import pair_table
from posttrain.errors import UserError
from posttrain.stages import Job

COUNTED = ("capability", "language", "source")
MOST_NAMES = 100
"""Sources, at most, that the summary counts one by one."""


def run(job: Job) -> None:
    config: MixConfig = job.config
    lengths = counted(str(job.inputs["tokenizer"])) if config.by == "tokens" else estimated
    scores = sorted({name for part in config.parts.values() for name in part.least})
    there = survey(_sources(job), job.seed, lengths, scores, lambda done, total: job.progress(done, total, "rows read"))
    parts = config.parts or {name: Part() for name in there.names["capability"]}
    members = _members(parts, there)
    measure = there.tokens if config.by == "tokens" else np.ones(len(there), np.int64)
    asked = asked_amounts(config, parts, {name: int(measure[rows].sum()) for name, rows in members.items()})
    taken = {name: take(there.key, measure, members[name], amount) for name, amount in asked.items()}
    chosen, order = (np.concatenate(list(columns)) for columns in zip(*taken.values(), strict=True))
    chosen = chosen[np.argsort(order, kind="stable")]
    table = "rows" if config.of == "rows" else "pairs"
    job.rows[table] = write_in_order(
        job.folder, table, there.sources, there.source_index[chosen], there.row_index[chosen],
        lambda done, total: job.progress(done, total, "rows written"),
    )  # fmt: skip
    job.summary |= _summary(config, there, members, asked, {name: rows for name, (rows, _) in taken.items()})


def _sources(job: Job) -> list[Source]:
    """Every input once: a file of preferences stands among ranked and among annotated pairs."""
    folders = dict.fromkeys(Path(folder) for name in INPUTS[job.config.of] for folder in job.inputs.get(name, []))
    return [(folder, "rows" if job.config.of == "rows" else pair_table(folder)) for folder in folders]


def _members(parts: Mapping[str, Part], there: Catalogue) -> dict[str, np.ndarray]:
    """The rows of each part, by key. Raises UserError for a row that two parts would take."""
    owner = np.full(len(there), -1)
    found = {}
    for number, (name, part) in enumerate(sorted(parts.items())):
        wanted = _wanted(name, part, there)
        both = np.flatnonzero(wanted & (owner >= 0))
        if len(both):
            other = sorted(parts)[owner[both[0]]]
            raise UserError(
                f"mix: {len(both):,} rows belong to both parts {other} and {name}; "
                "give one of them a capability, language, source or round that the other has not"
            )
        owner[wanted] = number
        found[name] = np.flatnonzero(wanted)
    return found


def _wanted(name: str, part: Part, there: Catalogue) -> np.ndarray:
    capabilities = part.capability or (name,)
    wanted = np.ones(len(there), bool) if ANY in part.capability else there.among("capability", capabilities)
    for column, texts in (("language", part.language), ("source", part.source), ("rating", part.rating)):
        if texts:
            wanted &= there.among(column, texts)
    if part.round:
        wanted &= np.isin(there.round, part.round)
    for score, least in part.least.items():
        wanted &= there.scores[score] >= least  # which NaN is not
    return wanted


def asked_amounts(config: MixConfig, parts: Mapping[str, Part], there: Mapping[str, int]) -> dict[str, int]:
    """Examples, or tokens, that each part with a weight is asked for; `there` says what it has in one pass.

    With `total` 0, the most at which no part is asked for more than its epochs and cap allow. Raises UserError for a
    part that has nothing, and for one that falls short unless rows are to be repeated.
    """
    usable = {name: _usable(parts[name], amount) for name, amount in sorted(there.items())}
    weights = {name: parts[name].weight for name in usable}
    empty = [name for name, weight in weights.items() if weight != 0 and not there[name]]
    shares = {name: usable[name] if weight is None else weight for name, weight in weights.items()}
    shares = {name: share for name, share in shares.items() if share}
    if not shares or empty:
        raise UserError(_nothing(config, empty, there))
    asked = largest_remainder(shares, config.total or most_in_proportion(shares, usable))
    repeats = config.on_shortfall == "repeat"
    most = {name: (parts[name].cap or asked[name]) if repeats else usable[name] for name in asked}
    short = {name: amount for name, amount in asked.items() if amount > most[name]}
    if short:
        told = ", ".join(f"{name} {amount:,} where {most[name]:,} may be taken" for name, amount in short.items())
        raise UserError(
            f"the mix asks for more {config.by} than its parts have ({told}); lower mix.total to "
            f"{most_in_proportion(shares, most):,}, or give these parts more epochs"
            + ("" if repeats else ", or set on_shortfall: repeat")
        )
    return asked


def _usable(part: Part, there: int) -> int:
    passes = int(there * part.epochs)
    return min(passes, part.cap) if part.cap else passes


def _nothing(config: MixConfig, empty: list[str], there: Mapping[str, int]) -> str:
    found = ", ".join(f"{name} {amount:,}" for name, amount in there.items() if amount) or "no rows at all"
    which = f"no row for {', '.join(empty)}" if empty else "nothing to take"
    return f"the mix has {which} ({config.by} found: {found}); change mix.parts, or the stages before it"


def take(key: np.ndarray, measure: np.ndarray, members: np.ndarray, amount: int) -> tuple[np.ndarray, np.ndarray]:
    """Members whose measures sum up to the amount, as nearly as whole rows can, and where in the mix each stands.

    Pass after pass over the members; in each, they come in an order of its own. So a larger mix extends a smaller one.
    """
    passes, rest = divmod(amount, max(1, int(measure[members].sum())))
    rows, order = [], []
    for number in range(passes + 1):
        keys = key[members]
        if number:
            keys = np.array([int(content_id(number, int(value)), 16) for value in keys], np.uint64)
        by_key = np.argsort(keys)
        sums = np.r_[0, np.cumsum(measure[members[by_key]])]
        end = len(members) if number < passes else int(np.argmin(np.abs(sums - rest)))
        rows.append(members[by_key[:end]])
        order.append(keys[by_key[:end]])
    return np.concatenate(rows), np.concatenate(order)


def _summary(
    config: MixConfig, there: Catalogue, members: Mapping[str, np.ndarray], asked: Mapping[str, int],
    taken: Mapping[str, np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    """What was asked and obtained by part, and counts before and after by capability, language, source and length."""
    measure = there.tokens if config.by == "tokens" else np.ones(len(there), np.int64)
    chosen = np.concatenate(list(taken.values()))
    distinct, left = len(np.unique(chosen)), len(there) - sum(len(members[name]) for name in asked)
    return {
        "parts": {
            name: {
                "available": int(measure[members[name]].sum()), "asked": amount,
                "obtained": int(measure[rows].sum()), "examples": len(rows), "tokens": int(there.tokens[rows].sum()),
                "passes": round(len(rows) / len(members[name]), 3),
            }
            for (name, amount), rows in zip(asked.items(), taken.values(), strict=True)
        },
        "by": config.by,
        "lengths": f"tokens of {config.tokenizer}" if config.by == "tokens" else "estimated tokens",
        "counts": {
            **{name: _counts(there.codes[name], there.names[name], chosen) for name in COUNTED},
            "length": _counts(*_buckets(there.tokens), chosen),
        },
        "drops": {
            "duplicate": there.read - len(there), "not asked for": left,
            "beyond its share": len(there) - left - distinct,
        },
    }  # fmt: skip


def _counts(codes: np.ndarray, names: list[str], chosen: np.ndarray) -> dict[str, dict[str, int]]:
    """Name → examples available and obtained, most first; names beyond MOST_NAMES together as `others`."""
    available, obtained = np.bincount(codes, minlength=len(names)), np.bincount(codes[chosen], minlength=len(names))
    order = sorted(range(len(names)), key=lambda code: (-obtained[code], -available[code], names[code]))
    found = {
        names[code] or "unnamed": {"available": int(available[code]), "obtained": int(obtained[code])}
        for code in order[:MOST_NAMES]
    }
    rest = order[MOST_NAMES:]
    if rest:
        found["others"] = {"available": int(available[rest].sum()), "obtained": int(obtained[rest].sum())}
    return found


def _buckets(tokens: np.ndarray) -> tuple[np.ndarray, list[str]]:
    names: dict[str, int] = {}
    return np.array([names.setdefault(bucket(int(length)), len(names)) for length in tokens], np.int64), list(names)
