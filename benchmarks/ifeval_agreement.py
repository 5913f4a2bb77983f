"""Case by case, our 25 IFEval checkers against those of lm-eval (google-research's): `--write` for the list.

    /path/to/python-with-lm-eval -P benchmarks/ifeval_agreement.py --write

Each made instruction is checked on answers that were made for instructions of every kind, so that both verdicts occur.
Sentences and capital words the peer counts with NLTK's Punkt. Where this machine lacks its data, which is no package,
NLTK's own algorithm runs without them: Punkt knows no abbreviations then, and words are not told from sentence ends,
which changes no word's case.
"""

import argparse
import random
from collections import Counter
from functools import partial
from pathlib import Path

from eval.scorers.ifeval import CHECKERS, Instruction, follows
from eval.suites.instructions import MAKERS

RESULTS = Path(__file__).parent / "results" / "ifeval_agreement.md"
EACH, ANSWERS = 10, 14
"""Instructions of each kind, and answers each is checked on besides its own."""


def cases(seed: int) -> list[tuple[Instruction, str]]:
    rng = random.Random(seed)
    made = {kind: [maker(rng, "Write of rain.") for _ in range(EACH)] for kind, maker in MAKERS.items()}
    pool = [gold for own in made.values() for _, _, gold in own]
    pool += [f"{gold}\n\n{other}" for gold, other in zip(pool, rng.sample(pool, len(pool)), strict=True)]
    found = []
    for kind, own in made.items():
        for kwargs, _, gold in own:
            found += [(Instruction(id=kind, kwargs=kwargs), text) for text in [gold, *rng.sample(pool, ANSWERS)]]
    return found


def theirs(instruction: Instruction, text: str) -> bool:
    """The peer's verdict."""
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    checker = INSTRUCTION_DICT[instruction.id](instruction.id)
    checker.build_description(**instruction.kwargs)
    return bool(text.strip() and checker.check_following(text))


def has_punkt() -> bool:
    """Whether NLTK's data are here; without them its algorithms are set to run untrained."""
    import nltk
    from lm_eval.tasks.ifeval import instructions_util

    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError:
        instructions_util._get_sentence_tokenizer = nltk.tokenize.PunktSentenceTokenizer
        nltk.word_tokenize = partial(nltk.tokenize.word_tokenize, preserve_line=True)
        return False
    return True


def compare() -> str:
    agree, differ, shown = Counter[str](), Counter[str](), list[str]()
    trained = has_punkt()
    for instruction, text in cases(5):
        peer, own = theirs(instruction, text), follows(text, instruction)
        (agree if peer == own else differ)[instruction.id] += 1
        if peer != own and differ[instruction.id] <= 5:
            shown.append(f"| {instruction.id} | `{instruction.kwargs}` | `{text[:80]!r}` | {peer} | {own} |")
    total = agree.total() + differ.total()
    lines = [f"{total:,} cases: {agree.total():,} agree, {differ.total():,} differ ({dict(differ)})."]
    if not trained:
        lines.append("NLTK's data are not here: its Punkt counts sentences untrained, without any abbreviations.")
    head = ["| instruction | kwargs | answer | lm-eval | here |", "|---|---|---|---|---|"]
    return "\n\n".join(lines) + ("\n\n" + "\n".join([*head, *shown]) if shown else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    given = parser.parse_args()
    assert set(MAKERS) == set(CHECKERS)
    shown = compare()
    print(shown)
    if given.write:
        RESULTS.write_text(f"# Our IFEval checkers against lm-eval's\n\n{shown}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
