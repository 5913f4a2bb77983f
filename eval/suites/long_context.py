"""Finding, following and counting in long texts: RULER's families (arXiv 2404.06654) at any length, measured in tokens.

The text between the needles is made from a few lists, so that no corpus is needed; every prompt has its own.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, pairwise, product

from eval.suites.long_context_spec import LongContextConfig
from eval.suites.making import Answering, Item, asks, says, write_suite
from posttrain.chat import Renderer
from posttrain.data.rows import Check
from posttrain.errors import UserError
from posttrain.stages import Job

TOLERANCE = 0.02
"""How far below its length a prompt may stay."""
MOST_TRIES = 40
NEEDLE = "The special magic number for {key} is: {value}."
KEYS = """amber anchor basil beacon cedar cobalt copper dune ember falcon fjord garnet harbor indigo ivory jasper
lantern maple meadow nectar onyx orchid pearl quartz raven saffron sierra thistle topaz tundra umber velvet walnut
willow zephyr zinc""".split()
WHO = "The baker,A sailor,The old clerk,One child,My aunt,The tall guard,A painter,The miller".split(",")
DID = "carried,found,sold,painted,lost,mended,hid,borrowed".split(",")
WHAT = "a lamp,two coats,the ladder,an empty jar,a small drum,the blue rug,some rope,a letter".split(",")
WHERE = "near the river,behind the station,in the rain,before noon,on the hill,after lunch".split(",")
HOPS = 4
"""RULER's one chain of four hops."""
COMMON, COMMON_TIMES, RARE_TIMES = 10, 30, 3
"""RULER's common words: the ten that occur thirty times, among others that occur three times; fewer where a text is too
short for so many."""
FREQUENT, ALPHA = 3, 2.0
"""RULER's frequent words: the three most frequent of coded words whose counts fall by Zipf's law with this exponent."""


@dataclass(frozen=True)
class Draft:
    """A prompt whose length is still open: `text(size)` grows with `size`."""

    text: Callable[[int], str]
    answers: tuple[str, ...]
    gold: str = ""


def run(job: Job) -> None:
    config: LongContextConfig = job.config
    renderer = Renderer.from_pretrained(job.inputs["tokenizer"])
    cells = list(_cells(config))
    job.log.info("%d prompts of %s tokens", len(cells), ", ".join(map(str, config.lengths)))
    write_suite(
        job, _items(job, config, renderer, cells), Answering("long_context", max_new_tokens=config.max_new_tokens)
    )


def _cells(config: LongContextConfig) -> Iterator[tuple[str, int, int]]:
    """Task, length and number of each prompt, the tasks and lengths in turn."""
    for number in range(config.n):
        turn, cell = divmod(number, len(config.tasks) * len(config.lengths))
        task, length = list(product(config.tasks, config.lengths))[cell]
        yield task, length, turn


def _items(
    job: Job, config: LongContextConfig, renderer: Renderer, cells: list[tuple[str, int, int]]
) -> Iterator[Item]:
    for done, (task, length, turn) in enumerate(cells, 1):
        depth = (turn % config.depths) / max(1, config.depths - 1)
        rng = random.Random(f"long_context {config.seed} {task} {length} {turn}")
        item, tokens = fitted(renderer, TASKS[task](rng, depth), length, task)
        about = {"category": task, "length": length, "tokens": tokens, **({"depth": depth} if task == "needle" else {})}
        yield replace(item, about=about)
        job.progress(done, len(cells), "prompts")


def fitted(renderer: Renderer, draft: Draft, length: int, task: str) -> tuple[Item, int]:
    """The longest prompt of at most `length` tokens, found by interpolation, and its tokens.

    Raises UserError when no size comes within the tolerance.
    """
    low, high, best = 0, 0, (0, "")
    size, per_unit = max(4, length // 16), 0.0
    for _ in range(MOST_TRIES):
        text = draft.text(size)
        tokens = len(renderer.prompt(asks(text)))
        if tokens > length:
            high = size
        else:
            low, best = size, max(best, (tokens, text))
            if tokens >= (1 - TOLERANCE / 4) * length:
                break
        per_unit = tokens / size
        size = _next_size(size + round((0.998 * length - tokens) / per_unit), low, high)
        if size in (low, high):
            break
    tokens, text = best
    if tokens < (1 - TOLERANCE) * length:
        raise UserError(f"{length} tokens cannot be met by {task} within 2 percent; choose a greater length")
    check = Check("recall", {"answers": list(draft.answers)})
    return Item(asks(text), check, says(draft.gold or ", ".join(draft.answers))), tokens


def _next_size(wished: int, low: int, high: int) -> int:
    """A size between what is known to be too small and what is known to be too large; their middle where the wish lies
    outside."""
    if high and not low < wished < high:
        return (low + high) // 2
    return max(wished, low + 1)


def _filler(rng: random.Random) -> Callable[[int], list[str]]:
    """Sentences of so many words together, the last one cut short; a longer text begins with the shorter one."""
    made: list[list[str]] = []

    def sentences(words: int) -> list[str]:
        taken: list[str] = []
        for number in count():
            if number == len(made):
                made.append(" ".join(map(rng.choice, (WHO, DID, WHAT, WHERE))).split())
            taken.append(" ".join(made[number][:words]) + ".")
            words -= len(made[number])
            if words <= 0:
                return taken
        raise AssertionError("the count has no end")

    return sentences


def _hidden(rng: random.Random, needles: list[str], places: list[float], question: str) -> Callable[[int], str]:
    filler = _filler(rng)

    def text(size: int) -> str:
        sentences = filler(size)
        parts, start = [], 0
        for place, needle in sorted(zip(places, needles, strict=True)):
            cut = round(place * len(sentences))
            parts += [*sentences[start:cut], needle]
            start = cut
        body = " ".join([*parts, *sentences[start:]])
        return f"Some special magic numbers are hidden in the following text. Memorize them.\n{body}\n{question}"

    return text


def _keys(rng: random.Random, number: int) -> list[str]:
    return [f"{one}-{two}" for one, two in zip(rng.sample(KEYS, number), rng.sample(KEYS, number), strict=True)]


def _values(rng: random.Random, number: int) -> list[str]:
    return [str(value) for value in rng.sample(range(1_000_000, 10_000_000), number)]


def _needles(rng: random.Random, places: list[float], asked: int, keys: list[str]) -> Draft:
    """Needles at the places; the question is for the first `asked` of the keys, in all their values."""
    values = _values(rng, len(places))
    needles = [NEEDLE.format(key=key, value=value) for key, value in zip(keys, values, strict=True)]
    named = list(dict.fromkeys(keys))[:asked]
    one = sum(key in named for key in keys) == 1
    question = (
        f"What is the special magic number for {named[0]} mentioned in the provided text?"
        if one
        else f"What are all the special magic numbers for {' and '.join(named)} mentioned in the provided text?"
    )
    answers = tuple(value for key, value in zip(keys, values, strict=True) if key in named)
    return Draft(_hidden(rng, needles, places, question), answers)


def _needle(rng: random.Random, depth: float) -> Draft:
    return _needles(rng, [depth], 1, _keys(rng, 1))


def _multi_needle(rng: random.Random, depth: float) -> Draft:
    return _needles(rng, [rng.random() for _ in range(4)], 2, _keys(rng, 4))


def _multi_value(rng: random.Random, depth: float) -> Draft:
    return _needles(rng, [rng.random() for _ in range(4)], 1, _keys(rng, 1) * 4)


def _multi_query(rng: random.Random, depth: float) -> Draft:
    return _needles(rng, [rng.random() for _ in range(4)], 4, _keys(rng, 4))


def _variable_tracking(rng: random.Random, depth: float) -> Draft:
    """One chain of assignments in order; asked are all names that have the first value."""
    letters = rng.sample("ABCDEFGHJKLMNPQRSTUVWXYZ", HOPS + 1)
    names = [f"{letter}{rng.choice('AEIOU')}{rng.choice('KLMNRST')}{rng.choice('XYZW')}" for letter in letters]
    value = str(rng.randint(10_000, 99_999))
    lines = [f"VAR {names[0]} = {value}."]
    lines += [f"VAR {name} = VAR {before}." for before, name in pairwise(names)]
    places = sorted(rng.random() for _ in lines)
    filler = _filler(rng)

    def text(size: int) -> str:
        sentences, parts, start = filler(size), list[str](), 0
        for place, line in zip(places, lines, strict=True):
            cut = round(place * len(sentences))
            parts += [*sentences[start:cut], line]
            start = cut
        body = " ".join([*parts, *sentences[start:]])
        return (
            "Memorize and track the chains of variable assignments hidden in the following text.\n"
            f"{body}\nFind all variables that are assigned the value {value} in the text above."
        )

    return Draft(text, tuple(names))


def _coined(rng: random.Random) -> Iterator[str]:
    """Made-up words, each once."""
    seen: set[str] = set()
    while True:
        parts = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))
        word = "".join(parts) + rng.choice("nrslk")
        if word not in seen:
            seen.add(word)
            yield word


def _common_words(rng: random.Random, depth: float) -> Draft:
    """A numbered list in which ten words occur far more often than all others."""
    coined, salt = _coined(rng), rng.random()
    common, rare = [next(coined) for _ in range(COMMON)], list[str]()

    def text(size: int) -> str:
        times = min(COMMON_TIMES, max(2, size // (2 * COMMON)))
        once = min(RARE_TIMES, times - 1)
        rest = max(0, size - times * COMMON)
        while len(rare) * once < rest:
            rare.append(next(coined))
        words = common * times + [word for word in rare for _ in range(once)][:rest]
        random.Random(f"{salt} {size}").shuffle(words)
        listed = " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))
        return (
            "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones "
            f"that appear most often.\n{listed}\nWhat are the {COMMON} most common words in the above list?"
        )

    return Draft(text, tuple(common))


def _frequent_words(rng: random.Random, depth: float) -> Draft:
    """Coded words by Zipf's law; dots are noise, as in RULER."""
    coined, salt = _coined(rng), rng.random()
    words: list[str] = [next(coined) for _ in range(FREQUENT)]

    def text(size: int) -> str:
        scale, counts = size / 1.6449, list[int]()  # the sum of 1/k² is π²/6
        while (times := int(scale / (len(counts) + 1) ** ALPHA)) >= 1:
            counts.append(times)
        while len(words) < len(counts) or len(words) < FREQUENT:
            words.append(next(coined))
        laid = [word for word, times in zip(words, counts, strict=False) for _ in range(times)]
        laid += ["..."] * (size - len(laid))
        random.Random(f"{salt} {size}").shuffle(laid)
        return (
            "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
            f"appeared coded words.\n{' '.join(laid)}\nDo not provide any explanation. Please ignore the dots '....'. "
            "What are the three most frequently appeared words in the above coded text?"
        )

    return Draft(text, tuple(words[:FREQUENT]))


TASKS: dict[str, Callable[[random.Random, float], Draft]] = {
    "needle": _needle,
    "multi_needle": _multi_needle,
    "multi_value": _multi_value,
    "multi_query": _multi_query,
    "variable_tracking": _variable_tracking,
    "common_words": _common_words,
    "frequent_words": _frequent_words,
}
"""Task → draft of a prompt; the depth, 0 to 1, is where a single needle lies."""
