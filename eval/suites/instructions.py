"""Instructions that a program can check: the 25 kinds of IFEval, strict and loose, made or from the public file."""

import random
from collections.abc import Callable, Iterator
from typing import Any

from eval.scorers.ifeval import CHECKERS
from eval.suites.making import Answering, Item, asks, file_items, reference, says, write_suite
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job

SUBJECTS = ("a rainy market", "the first day at school", "a lost umbrella", "an old bridge", "a trip to the sea",
            "a noisy kitchen", "the night train", "a garden in winter", "a broken clock")  # fmt: skip
WORDS = ("river", "candle", "window", "summer", "bottle", "garden", "market", "silver", "morning", "letter")
LANGUAGES = {"de": "German", "fr": "French", "it": "Italian", "es": "Spanish", "hi": "Hindi", "th": "Thai"}
IN_LANGUAGE = {
    "de": "Das ist eine kurze Geschichte über einen Tag im Regen, an dem niemand nach Hause gehen wollte.",
    "fr": "C'est une courte histoire sur une journée de pluie où personne ne voulait rentrer à la maison.",
    "it": "Questa è una breve storia su una giornata di pioggia in cui nessuno voleva tornare a casa.",
    "es": "Esta es una historia corta sobre un día de lluvia en el que nadie quería volver a casa.",
    "hi": "यह बारिश के एक दिन की छोटी कहानी है जब कोई भी घर नहीं जाना चाहता था।",
    "th": "นี่คือเรื่องสั้นเกี่ยวกับวันฝนตกที่ไม่มีใครอยากกลับบ้าน",
}
PLAIN = "This is a short story about a day in the rain when nobody wanted to go home"
Made = tuple[dict[str, Any], str, str]
"""The instruction's kwargs, its words, and an answer that follows it."""


def run(job: Job) -> None:
    items = file_items(job, _of_record) if "file" in job.inputs else _made(job.config.n, job.config.seed)
    write_suite(job, items, Answering("instructions", max_new_tokens=job.config.max_new_tokens))


def _made(n: int, seed: int) -> Iterator[Item]:
    """One instruction a prompt, the kinds in turn; a prompt that was drawn before is drawn again."""
    rng, seen = random.Random(f"instructions {seed}"), set[str]()
    kinds = list(MAKERS)
    while len(seen) < n:
        kind = kinds[len(seen) % len(kinds)]
        task = f"Write of {rng.choice(SUBJECTS)} with {rng.choice(WORDS)} in mind, part {rng.randint(1, 99)}."
        kwargs, words, gold = MAKERS[kind](rng, task)
        text = f"{task} {words}"
        if text not in seen:
            seen.add(text)
            check = Check("ifeval", {"instructions": [{"id": kind, "kwargs": kwargs}]})
            language = kwargs.get("language", "en")
            yield Item(asks(text), check, says(gold), language=language, about={"category": kind})


def _of_record(record: Record) -> Item:
    ids, kwargs = reference(record, "instruction_id_list"), reference(record, "kwargs")
    unknown = [one for one in ids if one not in CHECKERS]
    if unknown:
        raise ValueError(f"has the instruction {unknown[0]!r}, which is none of the 25 of IFEval")
    if len(ids) != len(kwargs):
        raise ValueError(f"has {len(ids)} instructions and {len(kwargs)} kwargs")
    needed = [
        {"id": name, "kwargs": {key: value for key, value in given.items() if value is not None}}
        for name, given in zip(ids, kwargs, strict=True)
    ]
    category = ids[0] if len(ids) == 1 else f"{len(ids)} instructions"
    return Item(
        asks(reference(record, "prompt")), Check("ifeval", {"instructions": needed}), about={"category": category}
    )


def _at_least(rng: random.Random, fewest: int = 2, most: int = 5) -> int:
    return rng.randint(fewest, most)


def _existence(rng: random.Random, task: str) -> Made:
    words = rng.sample(WORDS, 2)
    return (
        {"keywords": words},
        f"Include the keywords {words[0]} and {words[1]}.",
        f"The {words[0]} and the {words[1]}.",
    )


def _frequency(rng: random.Random, task: str) -> Made:
    word, count = rng.choice(WORDS), _at_least(rng)
    kwargs = {"keyword": word, "frequency": count, "relation": "at least"}
    return kwargs, f"The word {word} should appear at least {count} times.", f"{word} " * count


def _forbidden(rng: random.Random, task: str) -> Made:
    words = rng.sample(WORDS, 2)
    return {"forbidden_words": words}, f"Do not use the words {words[0]} and {words[1]}.", PLAIN


def _letter(rng: random.Random, task: str) -> Made:
    letter, count = rng.choice("aeiostn"), _at_least(rng, 3, 9)
    kwargs = {"letter": letter, "let_frequency": count, "let_relation": "at least"}
    return kwargs, f"The letter {letter} should appear at least {count} times.", f"b{letter}" * count


def _language(rng: random.Random, task: str) -> Made:
    language = rng.choice(list(LANGUAGES))
    words = f"Your entire response should be in {LANGUAGES[language]}, no other language is allowed."
    return {"language": language}, words, IN_LANGUAGE[language]


def _sentences(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    kwargs = {"num_sentences": count, "relation": "less than"}
    return kwargs, f"Use less than {count} sentences.", "It rained all day."


def _paragraphs(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    words = f"There should be exactly {count} paragraphs, separated with the markdown divider: ***"
    return {"num_paragraphs": count}, words, "\n***\n".join(["It rained."] * count)


def _words(rng: random.Random, task: str) -> Made:
    count = _at_least(rng, 8, 30)
    return {"num_words": count, "relation": "at least"}, f"Answer with at least {count} words.", "rain " * count


def _nth(rng: random.Random, task: str) -> Made:
    word = rng.choice(WORDS)
    kwargs = {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": word}
    words = f"There should be 3 paragraphs, separated by two new lines. Paragraph 2 must start with the word {word}."
    return kwargs, words, f"It rained.\n\n{word.capitalize()}, they said.\n\nThen it stopped."


def _placeholders(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    words = f"The response must contain at least {count} placeholders in square brackets, such as [address]."
    return {"num_placeholders": count}, words, "Dear [name] " * count


def _postscript(rng: random.Random, task: str) -> Made:
    marker = rng.choice(("P.S.", "P.P.S"))
    words = f"At the end of your response, please explicitly add a postscript starting with {marker}"
    return {"postscript_marker": marker}, words, f"It rained.\n{marker} It still does."


def _bullets(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    words = f"Your answer must contain exactly {count} bullet points. Use markdown bullets such as: * This is a point."
    return {"num_bullets": count}, words, "\n".join(["* It rained."] * count)


def _constrained(rng: random.Random, task: str) -> Made:
    words = "Answer with one of: My answer is yes. My answer is no. My answer is maybe."
    return {}, words, "My answer is maybe."


def _highlights(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    words = f"Highlight at least {count} sections in your answer with markdown, i.e. *highlighted section*."
    return {"num_highlights": count}, words, "*rain* and " * count


def _sections(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    words = f"Your response must have {count} sections. Mark the beginning of each with SECTION X, such as: SECTION 1"
    gold = "\n".join(f"SECTION {number}\nIt rained." for number in range(1, count + 1))
    return {"section_spliter": "SECTION", "num_sections": count}, words, gold


def _json(rng: random.Random, task: str) -> Made:
    return {}, "Entire output should be wrapped in JSON format.", '{"story": "It rained."}'


def _title(rng: random.Random, task: str) -> Made:
    return {}, "Your answer must contain a title, wrapped in double angular brackets, such as <<joy>>.", "<<Rain>>"


def _two(rng: random.Random, task: str) -> Made:
    words = "Give two different responses. Responses and only responses should be separated by 6 asterisks: ******."
    return {}, words, "It rained.\n******\nIt snowed."


def _repeat(rng: random.Random, task: str) -> Made:
    words = "First repeat the request word for word without change, then give your answer."
    return {"prompt_to_repeat": task}, words, f"{task}\nIt rained."


def _end(rng: random.Random, task: str) -> Made:
    phrase = f"That was the {rng.choice(WORDS)}."
    return {"end_phrase": phrase}, f"Finish your response with this exact phrase: {phrase}", f"It rained. {phrase}"


def _quoted(rng: random.Random, task: str) -> Made:
    return {}, "Wrap your entire response with double quotation marks.", '"It rained."'


def _capitals(rng: random.Random, task: str) -> Made:
    count = _at_least(rng)
    kwargs = {"capital_frequency": count, "capital_relation": "at least"}
    return kwargs, f"Words with all capital letters should appear at least {count} times.", "RAIN and " * count


def _upper(rng: random.Random, task: str) -> Made:
    return {}, "Your entire response should be in English, and in all capital letters.", PLAIN.upper()


def _lower(rng: random.Random, task: str) -> Made:
    return {}, "Your entire response should be in English, and in all lowercase letters.", PLAIN.lower()


def _no_comma(rng: random.Random, task: str) -> Made:
    return {}, "In your entire response, refrain from the use of any commas.", PLAIN


MAKERS: dict[str, Callable[[random.Random, str], Made]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _nth,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _end,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": _upper,
    "change_case:english_lowercase": _lower,
    "punctuation:no_comma": _no_comma,
}
"""Instruction id → what draws one, given the task it is put to."""
