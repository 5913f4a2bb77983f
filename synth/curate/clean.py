"""Rules over answers: each bad row is left out with the rule's name, and apologies are balanced (Llama 3, 4.2.3)."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from posttrain.checks.language import LATIN, UNDETERMINED, identify
from posttrain.checks.phrases import APOLOGIES, EMOJI, REFUSALS, pattern, plain
from posttrain.data.overlap import words
from posttrain.data.rows import LANGUAGES, Message, Row, content_id
from posttrain.stages import Job
from synth.curate.clean_spec import CleanConfig
from synth.curate.table import Drop, items, sift
from synth.curate.texts import CODE, answers, prose, shingles

REFUSAL_WITHIN = 200
"""Characters from an answer's beginning in which a refusal is looked for: later it is quoted or hypothetical."""
EXCLAMATION = re.compile("[!！]")
EXCLAMATIONS = re.compile("([!！])[!！]+")
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
PER_WORDS = 100
RULE_NAMES = ("empty", "unclosed_code", "language", "refusal", "repetition", "emoji", "exclamation")
"""The rules on a row alone, in the order they are tried; `apology` is on the table as a whole."""


def run(job: Job) -> None:
    """Write `rows` and `rejects`; the summary counts by rule, and apologies before and after by capability."""
    config: CleanConfig = job.config
    decided: dict[str, Drop] = {}
    apologies: dict[str, dict[str, list[str]]] = {}
    for row in items(job):
        drop = judge(row, config)
        if drop is not None:
            decided[row.id] = drop
        kept = drop.instead if drop else row
        if kept is not None and applies("apology", row, config):
            group = apologies.setdefault(row.capability, {"with": [], "without": []})
            group["with" if apology(row, config) else "without"].append(row.id)
    if config.apology is not None:
        over = {name: surplus(job.seed, group, config.apology) for name, group in sorted(apologies.items())}
        decided |= {row_id: Drop("apology") for ids in over.values() for row_id in ids}
        job.summary["apologies"] = {
            name: {"rows": sum(map(len, group.values())), "with": len(group["with"]), "left_out": len(over[name])}
            for name, group in sorted(apologies.items())
        }
    sift(job, lambda row: _told(row, decided.get(row.id), config))


def _told(row: Row, drop: Drop | None, config: CleanConfig) -> Row | Drop:
    if drop is None:
        return row
    return replace(drop, text=apology(row, config)) if drop.reason == "apology" else drop


def applies(rule: str, row: Row, config: CleanConfig) -> bool:
    """Whether the rule holds for the row's capability."""
    return rule not in config.exempt.get(row.capability, ())


def judge(row: Row, config: CleanConfig) -> Drop | None:
    """The first rule that one of the row's answers breaks, or None."""
    for name in RULE_NAMES:
        if getattr(config, name) in (None, False) or not applies(name, row, config):
            continue
        for message in answers(row):
            drop = RULES[name](message, row, config)
            if drop is not None:
                return _stripped(row, drop, config) if name in ("emoji", "exclamation") else drop
    return None


def surplus(seed: int, group: dict[str, list[str]], share: float) -> list[str]:
    """Which of the rows with an apology go, so that at most `share` of what remains has one; last in a seeded order."""
    most = int(share * len(group["without"]) / (1 - share) + ROUNDING)
    return sorted(group["with"], key=lambda row_id: content_id(seed, row_id))[most:]


ROUNDING = 1e-9
"""Keeps 0.2 × 4 / 0.8 from being 0.999… rows."""


def apology(row: Row, config: CleanConfig) -> str:
    """The first apology in the row's answers, or an empty text."""
    found = (pattern(APOLOGIES + config.apology_phrases).search(plain(prose(m["content"]))) for m in answers(row))
    return next((match.group() for match in found if match), "")


def _empty(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    return Drop("empty") if not message["content"].strip() and not message.get("tool_calls") else None


def _unclosed_code(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    opened = unclosed_fence(message["content"])
    return Drop("unclosed_code", opened) if opened else None


def unclosed_fence(text: str) -> str:
    """The line of the code fence that is still open at the end, or an empty text (CommonMark 4.5)."""
    opened, line_of = "", ""
    for line in text.splitlines():
        match = FENCE.fullmatch(line)
        if not match:
            continue
        fence, info = match.groups()
        if opened and fence[0] == opened[0] and len(fence) >= len(opened) and not info.strip():
            opened = line_of = ""
        elif not opened and not (fence[0] == "`" and "`" in info):
            opened, line_of = fence, line
    return line_of


def _language(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    text = prose(message["content"])
    if row.language not in LANGUAGES or sum(map(str.isalpha, text)) < config.language_letters:
        return None
    language, probability = identify(text)
    doubtful = language in LATIN and probability < config.language_sure
    if doubtful or language in (row.language, UNDETERMINED):
        return None
    return Drop("language", "", {"wanted": row.language, "found": language, "probability": round(probability, 3)})


def _refusal(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    match = pattern(REFUSALS + config.refusal_phrases).search(plain(message["content"])[:REFUSAL_WITHIN])
    return Drop("refusal", match.group()) if match else None


def _repetition(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    runs = shingles(prose(message["content"]), config.repetition_words)
    repeated = 1 - len(set(runs)) / len(runs)
    assert config.repetition is not None
    if repeated <= config.repetition:
        return None
    return Drop("repetition", Counter(runs).most_common(1)[0][0], {"repeated": round(repeated, 3)})


def _emoji(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    return _too_many("emoji", EMOJI, message["content"], config.emoji)


def _exclamation(message: Message, row: Row, config: CleanConfig) -> Drop | None:
    return _too_many("exclamation", EXCLAMATION, message["content"], config.exclamation)


def _too_many(rule: str, mark: re.Pattern[str], content: str, most: float | None) -> Drop | None:
    text = prose(content)
    found = mark.findall(text)
    assert most is not None
    if not found or len(found) * PER_WORDS / max(PER_WORDS, len(words(text))) <= most:
        return None
    return Drop(rule, "".join(found), {"count": len(found)})


RULES: dict[str, Callable[[Message, Row, CleanConfig], Drop | None]] = {
    "empty": _empty, "unclosed_code": _unclosed_code, "language": _language, "refusal": _refusal,
    "repetition": _repetition, "emoji": _emoji, "exclamation": _exclamation,
}  # fmt: skip


def _stripped(row: Row, drop: Drop, config: CleanConfig) -> Drop:
    """The drop with the row's calmer copy in its place, where the recipe wants one and it passes every rule."""
    if config.excess == "drop":
        return drop
    messages = tuple(_calm(m) if m["role"] == "assistant" else m for m in row.messages)
    made_by = {**row.made_by, "changed_by": "clean"}
    copy = replace(row, messages=messages, parents=(*row.parents, row.id), made_by=made_by, id="")
    again = judge(copy, config.model_copy(update={"excess": "drop"}))
    return again or replace(drop, reason=f"{drop.reason}, changed", instead=copy)


def _calm(message: Message) -> Message:
    """The message without emoji and with single exclamation marks; code stays as it is."""
    parts = CODE.split(message["content"])
    parts[::2] = [EXCLAMATIONS.sub(r"\1", re.sub(rf"[ \t]?(?:{EMOJI.pattern})", "", part)) for part in parts[::2]]
    return {**message, "content": "".join(parts).strip()}
