"""Back-translation of code (P 4.3.1): an explanation is good when the code can be written again from it alone."""

from posttrain.checks.judge import CRITERIA
from synth.code.toolchains import parsed, read_blocks
from synth.operators import Item, Work, ask, judge, sift, user

LONG_LINE = 16
"""Characters of a line of code that would not stand in prose by chance."""
FAITHFUL = f"""\
0. The answer behaves as the code in the conversation does: the same names, parameters, results, errors and edge cases.
   Its style may differ. An answer that behaves otherwise for any input has at most 5.
{CRITERIA}"""


def explained(work: Work, items: list[Item]) -> list[Item]:
    """Items with `code` → with `explanation`, and `again`, the code written from it alone, judged to be
    the same."""
    items = ask(work, items, "code/explain", into="explanation")
    items = sift(work, items, quotes, "explain: own words", "explanation")
    items = ask(work, items, "code/regenerate", into="answer")
    items = read_blocks(work, items, "in", "answer", "again", "regenerate: parse")
    items = parsed(work, items, "in", "again", "regenerate: syntax")
    return judge(
        work, items, lambda item: work.prompt(item, [user(f"{item['explanation']}\n\nThe code:\n{item['code']}")]),
        "again", criteria=FAITHFUL, least=work.config.faithful, step="faithful",
    )  # fmt: skip


def quotes(item: Item) -> str:
    """Why an explanation gives its code away, if so."""
    if "```" in item["explanation"]:
        return "explanation with a code block"
    lines = (line.strip() for line in item["code"].splitlines())
    quoted = sum(line in item["explanation"] for line in lines if len(line) >= LONG_LINE)
    return "explanation quotes its code" if quoted > 1 else ""
