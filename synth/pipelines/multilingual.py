"""Multilingual (P 4.3.2): people's dialogs, NLP tasks and parallel text in templates, new prompts from seeds of the
same language, and translated reasoning. No other machine translation is trained on.

Prompt and answer are in one language and one script; a translation has the numbers of its original.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable

from posttrain.data.read import read_rows
from posttrain.data.rows import Prompt, Row
from posttrain.data.shares import largest_remainder
from synth.multilingual.matching import latin, matches, unlike
from synth.multilingual.tasks import read_tasks
from synth.operators import (
    Item,
    Work,
    ask,
    converse,
    different,
    in_language,
    numbered,
    parse,
    says,
    sift,
    translate,
    user,
)
from synth.pipelines.multilingual_spec import OVER_ASK
from synth.world.languages import ENGLISH_NAMES


def make(work: Work) -> None:
    """Each kind up to its share of the rows; once more for what lacks."""
    shares = largest_remainder(work.config.kinds, work.config.rows)
    kept: Counter[str] = Counter()
    begun: Counter[str] = Counter()
    for _, wanted in work.passes():
        lacking = {kind: float(share - kept[kind]) for kind, share in shares.items()}
        for kind, part in largest_remainder(lacking, wanted).items():
            made = KINDS[kind](work, begun[kind], part) if part else []
            begun[kind] += begin(part)
            for item in _in_turn(work, made):
                if kept[kind] == shares[kind]:
                    break
                before = len(work.made)
                keep(work, kind, item)
                kept[kind] += len(work.made) - before


def begin(wanted: int) -> int:
    """How many are begun for so many wanted."""
    return math.ceil(OVER_ASK * wanted)


def human(work: Work, begun: int, wanted: int) -> list[Item]:
    """Dialogs as people wrote them; all of them at the first pass."""
    found: list[Row] = read_rows(work.input("human"), "auto", work.capability) if not begun else []
    items = [Item(row.id, {"messages": row.messages, "text": said(row)}, row.language, (row.id,)) for row in found]
    return in_language(work, _wanted(work, items), "text", "human: language")


def tasks(work: Work, begun: int, wanted: int) -> list[Item]:
    """Tasks and parallel text in the words of a user; all of them at the first pass."""
    items = _wanted(work, list(read_tasks(work, work.input("tasks"))) if not begun else [])
    items = sift(work, items, lambda item: item["fault"], "tasks", "question")
    return in_language(work, items, "told", "tasks: language")


def native(work: Work, begun: int, wanted: int) -> list[Item]:
    """New prompts by seeds of the same language and script, with answers in both."""
    seeds = defaultdict(list)
    for seed in work.seeds():
        if seed.language in work.config.languages:
            seeds[seed.language, latin(text_of(seed))].append(seed)
    items = _requests(work, seeds, begun, wanted)
    items = parse(work, ask(work, items, "multilingual/native_prompts", into="list"), numbered, of="list", into="list")
    items = [one for item in items for one in item.split("question", item["list"])]
    items = sift(work, in_language(work, items, "question"), _other_script, "script", "question")
    texts = [text_of(seed) for group in seeds.values() for seed in group]
    items = different(work, items, "question", [*texts, *work.known_texts()])
    items = converse(
        work, items, lambda item: [user(item["question"])], into="answer", temperature=work.config.temperature
    )
    items = [item.plus(told=str(item["answer"].get("content") or "")) for item in items]
    items = sift(work, items, lambda item: matches(item["question"], item["told"]), "answer language", "told")
    return [item.plus(messages=[user(item["question"]), item["answer"]], prompt=True) for item in items]


def _requests(work: Work, seeds: dict[tuple[str, bool], list[Prompt]], begun: int, wanted: int) -> list[Item]:
    """Requests for new prompts, the languages (and scripts of Hindi) in turn."""
    groups = sorted(seeds)
    items = []
    for place in range(math.ceil(begin(wanted) / work.config.batch) if groups else 0):
        language, script = groups[(place + begun) % len(groups)]
        pool = seeds[language, script]
        shown = work.rng("seeds", begun, place).sample(pool, min(work.config.shots, len(pool)))
        values = {
            "number": [begun, place], "count": work.config.batch, "language": ENGLISH_NAMES[language],
            "examples": [text_of(seed) for seed in shown], "latin": script,
        }  # fmt: skip
        items.append(work.item(values, language, [seed.id for seed in shown]))
    return items


def reasoning(work: Work, begun: int, wanted: int) -> list[Item]:
    """Quantitative problems with their answers, translated; each number of theirs must be there again."""
    found: list[Row] = read_rows(work.input("reasoning"), "auto", work.capability)
    into = [language for language in work.config.languages if language != "en"]
    pairs = [(row, language) for row in found for language in into]
    work.rng("reasoning").shuffle(pairs)
    done = []
    for language in into:
        chosen = [row for row, own in pairs[begun : begun + begin(wanted)] if own == language]
        items = [
            work.item({"asked": row.messages[0]["content"], "said": row.messages[-1]["content"]}, language, [row.id])
            for row in chosen if [message["role"] for message in row.messages] == ["user", "assistant"]
        ]  # fmt: skip
        items = translate(work, items, of="asked", into="question", to=language, temperature=0.0)
        items = translate(work, items, of="said", into="told", to=language, temperature=0.0)
        items = sift(work, items, lambda item: unlike(item["asked"], item["question"]), "numbers", "question")
        items = sift(work, items, lambda item: unlike(item["said"], item["told"]), "numbers", "told")
        done += [item.plus(messages=[user(item["question"]), says(item["told"])]) for item in items]
    return done


KINDS = {"human": human, "tasks": tasks, "native": native, "reasoning": reasoning}


def keep(work: Work, kind: str, item: Item) -> None:
    """The dialog; of a new prompt also the prompt, to be sampled."""
    prompt = work.prompt(item, item["messages"][:1]) if "prompt" in item.values else None
    parents = (prompt.id,) if prompt else item.parents
    work.keep(item, prompt, [work.row(item, item["messages"], parents=parents, labels={"kind": kind})])


def said(row: Row) -> str:
    """All that is said in a dialog."""
    return "\n".join(str(message.get("content") or "") for message in row.messages if message["role"] != "system")


def text_of(prompt: Prompt) -> str:
    return str(prompt.messages[-1].get("content") or "")


def _other_script(item: Item) -> str:
    return "" if latin(item["question"]) == item["latin"] else "other script than its examples"


def _wanted(work: Work, items: Iterable[Item]) -> list[Item]:
    """Those in the languages that are wanted."""
    return sift(
        work, list(items), lambda item: "" if item.language in work.config.languages else "language not wanted", "read"
    )


def _in_turn(work: Work, items: list[Item]) -> list[Item]:
    """Shuffled, the languages in turn, so that a share that is reached early has all of them."""
    groups = defaultdict(list)
    for item in sorted(items, key=lambda item: work.rng("turn", item.id).random()):
        groups[item.language].append(item)
    longest = max(map(len, groups.values()), default=0)
    return [group[place] for place in range(longest) for _, group in sorted(groups.items()) if place < len(group)]
