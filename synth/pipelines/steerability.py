"""Steerability (P 4.3.7): a system prompt that holds for a whole dialog, with a user whom the teacher plays.

Every answer of the assistant is checked: length, format and language by a program, a persona by a judge. An answer that
breaks its check is mended, and the dialog goes on with the mended one; the two make a pair in that context.
"""

from posttrain.data.rows import Message, Prompt, flagged
from synth.operators import Item, Work, ask, converse, in_language, judge, sift, system, told, user
from synth.operators.constraints import steer
from synth.pipelines.general import BROKEN, by_check, new_prompts, prompt_of, revised
from synth.pipelines.steerability_spec import SteerabilityConfig
from synth.world.languages import ENGLISH_NAMES

PERSONA = """\
1. It keeps to the persona of the system prompt: who speaks, how, and what that person cares about.
2. It does what the user asked, and does not speak of the system prompt.
3. It fits the answers before it: the same person speaks."""
FIRST_TURNS = 2


def make(work: Work) -> None:
    """New prompts → system prompts → for each turn an answer, its check, and the user's next turn → kept."""
    config: SteerabilityConfig = work.config
    seeds, first = work.seeds(), list[str]()
    for number, wanted in work.passes():
        items = new_prompts(work, seeds, number, wanted, [*first, *work.known_texts()])
        first += [item["prompt"] for item in items]
        items = behind_system(work, items)
        for turn in range(1, config.turns + 1):
            items = answered(work, items)
            for item in items:
                if item["turns"] == turn:
                    keep(work, item)
            items = asked_again(work, [item for item in items if item["turns"] > turn])


def behind_system(work: Work, items: list[Item]) -> list[Item]:
    """The items as a system prompt and the first turn, with the check of all answers and how many turns there are."""
    ready, personas = list[Item](), list[Item]()
    for item in items:
        rng = work.rng("system", item.id)
        said, check = steer(rng, item.language)
        turns = rng.randint(FIRST_TURNS, work.config.turns)
        item = item.plus(check=check, turns=turns, broken=(), language=ENGLISH_NAMES[item.language])
        (ready if said else personas).append(item.plus(system=said))
    personas = in_language(work, ask(work, personas, "general/persona", into="system"), "system", "persona language")
    together = sorted([*ready, *personas], key=lambda item: item.id)
    return [item.plus(messages=[system(item["system"]), user(item["prompt"])]) for item in together]


def answered(work: Work, items: list[Item]) -> list[Item]:
    """The items whose next answer keeps to the system prompt, at once or when mended; `broken` grows by the latter."""
    items = converse(work, items, lambda item: item["messages"], into="answer", temperature=0.0)
    right, wrong = by_check(work, items)
    acted = judge(
        work, [item for item in right if item["check"] is None], lambda item: prompt_of(work, item), "answer",
        least=work.config.least, criteria=PERSONA, step="persona",
    )  # fmt: skip
    mended = revised(work, wrong, BROKEN, "mend")
    mended = [item.plus(broken=(*item["broken"], (item["messages"], item["answer"], item["draft"]))) for item in mended]
    return sorted([*(item for item in right if item["check"]), *acted, *mended], key=lambda item: item.id)


def asked_again(work: Work, items: list[Item]) -> list[Item]:
    """The items with the user's next turn; the user, whom the teacher plays, does not see the system prompt."""
    ready = []
    for item in items:
        messages = [*item["messages"], item["answer"]]
        ready.append(item.plus(messages=messages, conversation=told(messages[1:])))
    found = in_language(work, ask(work, ready, "steerability/next_turn", into="next"), "next", "next turn language")

    def test(item: Item) -> str:
        return "repeats a turn" if repeats(item["next"], item["messages"]) else ""

    found = sift(work, found, test, "next turn", "next")
    return [item.plus(messages=[*item["messages"], user(item["next"])]) for item in found]


def repeats(text: str, messages: list[Message]) -> bool:
    """Whether a turn says what was said before, blanks and letters' case aside."""
    said = {" ".join(str(message["content"]).lower().split()) for message in messages}
    return " ".join(text.lower().split()) in said


def keep(work: Work, item: Item) -> None:
    """The dialog, all of whose answers are trained, its last turn as a prompt, and a pair, in context, for each answer
    that was mended."""
    prompt = prompt_of(work, item)
    labels = {"turns": item["turns"], "checked_by": item["check"].name if item["check"] else "judge"}
    row = work.row(item, [*flagged(prompt.messages), item["answer"]], parents=(prompt.id, *item.parents), labels=labels)
    contexts: list[tuple[Prompt, Message, Message]] = [
        (work.prompt(item, messages, check=item["check"]), better, draft) for messages, better, draft in item["broken"]
    ]
    work.keep(item, prompt, [row], [work.pair(item, *context) for context in contexts])
