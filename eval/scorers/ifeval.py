"""The 25 kinds of instructions of IFEval (arXiv 2311.07911), strict and loose, offline.

Each checker takes the answer and the instruction's `kwargs` as the public data names them, and means what
google-research's instruction_following_eval/instructions.py means. Two things are ours, since theirs need downloads:
sentences and capital words are counted by rules instead of NLTK's Punkt, and languages are told by py3langid
(docs/evaluation.md shows how often that matters).
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from eval.scorers.reading import Reading
from posttrain.checks.verdict import Args, text_of
from posttrain.data.rows import Message

Kwargs = dict[str, Any]
_ABBREVIATION = r"(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|Inc|Ltd|Co|No|Fig|U\.S|a\.m|p\.m)\."
_SENTENCE_END = re.compile(r"[.!?…。！？।]+[\"'”’)}\]*_]*(?=\s+\S|\s*$)")
_CAPITAL_WORD = re.compile(r"[^\W_]+(?:[-'’&.][^\W_]+)*")


def _compare(got: int, relation: str, wanted: int) -> bool:
    return got < wanted if relation == "less than" else got >= wanted


def sentences(text: str) -> int:
    """Sentences, told by what ends them; abbreviations and numbers end none."""
    covered = re.sub(_ABBREVIATION, lambda match: match.group().replace(".", "\x00"), text.strip())
    ends = [match.end() for match in _SENTENCE_END.finditer(covered)]
    rest = covered[ends[-1] :] if ends else covered
    return len(ends) + bool(re.search(r"\w", rest))


def _language(text: str, kwargs: Kwargs) -> bool:
    return _in_language(text, str(kwargs["language"]))


def _in_language(text: str, language: str) -> bool:
    """A text without a letter is in every language, as where langdetect gives up."""
    return not any(map(str.isalpha, text)) or _identifier()(text) == language


@functools.cache
def _identifier() -> Callable[[str], str]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    classify = LanguageIdentifier.from_model_file(MODEL_FILE).classify
    return lambda text: str(classify(text)[0])


def _paragraphs(text: str, kwargs: Kwargs) -> bool:
    """Paragraphs are divided by `***`; an empty one at either end counts for nothing, one between others fails."""
    parts = [bool(part.strip()) for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and sum(parts) == kwargs["num_paragraphs"]


def _nth_paragraph(text: str, kwargs: Kwargs) -> bool:
    parts = re.split(r"\n\n", text)
    count = sum(bool(part.strip()) for part in parts)
    nth = int(kwargs["nth_paragraph"])
    if nth > count or not parts[nth - 1].strip():
        return False
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    first = re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower()
    return count == kwargs["num_paragraphs"] and first == str(kwargs["first_word"]).lower()


def _postscript(text: str, kwargs: Kwargs) -> bool:
    marker = kwargs["postscript_marker"]
    patterns = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    return re.search(patterns.get(marker, r"\s*" + marker.lower() + r".*$"), text.lower(), re.MULTILINE) is not None


def _bullets(text: str, kwargs: Kwargs) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    return len(stars) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE)) == kwargs["num_bullets"]


def _highlights(text: str, kwargs: Kwargs) -> bool:
    one = [part for part in re.findall(r"\*[^\n\*]*\*", text) if part.strip("*").strip()]
    two = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", text) if part[2:-2].strip()]
    return len(one) + len(two) >= kwargs["num_highlights"]


def _sections(text: str, kwargs: Kwargs) -> bool:
    parts = re.split(rf"\s?{kwargs['section_spliter']}\s?\d+\s?", text)
    return len(parts) - 1 >= kwargs["num_sections"]


def _json(text: str, kwargs: Kwargs) -> bool:
    bare = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, kwargs: Kwargs) -> bool:
    parts = [part.strip() for part in text.split("******")]
    said = [part for part in parts if part]
    return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]


def _keyword_count(text: str, kwargs: Kwargs) -> bool:
    found = len(re.findall(kwargs["keyword"], text, re.IGNORECASE))
    return _compare(found, kwargs["relation"], kwargs["frequency"])


def _letters(text: str, kwargs: Kwargs) -> bool:
    found = Counter(text.lower())[kwargs["letter"].lower()]
    return _compare(found, kwargs["let_relation"], kwargs["let_frequency"])


def _capital_words(text: str, kwargs: Kwargs) -> bool:
    found = sum(word.isupper() for word in _CAPITAL_WORD.findall(text))
    return _compare(found, kwargs["capital_relation"], kwargs["capital_frequency"])


def _ends(text: str, kwargs: Kwargs) -> bool:
    return text.strip().strip('"').lower().endswith(kwargs["end_phrase"].strip().lower())


def _quoted(text: str, kwargs: Kwargs) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


CHECKERS: dict[str, Callable[[str, Kwargs], bool]] = {
    "keywords:existence": lambda text, k: all(re.search(word, text, re.IGNORECASE) for word in k["keywords"]),
    "keywords:frequency": _keyword_count,
    "keywords:forbidden_words": lambda text, k: (
        not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in k["forbidden_words"])
    ),
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda text, k: _compare(sentences(text), k["relation"], k["num_sentences"]),
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, k: _compare(
        len(re.findall(r"\w+", text)), k["relation"], k["num_words"]
    ),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, k: (
        len(re.findall(r"\[.*?\]", text)) >= k["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, k: any(
        f"My answer is {word}." in text.strip() for word in ("yes", "no", "maybe")
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda text, k: any(
        title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text)
    ),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda text, k: text.strip().lower().startswith(k["prompt_to_repeat"].strip().lower()),
    "startend:end_checker": _ends,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, k: text.isupper() and _in_language(text.lower(), "en"),
    "change_case:english_lowercase": lambda text, k: text.islower() and _in_language(text, "en"),
    "punctuation:no_comma": lambda text, k: "," not in text,
}
"""Instruction id → whether an answer follows it."""


class Instruction(Args):
    """One instruction by its public id, with what it needs."""

    id: str
    kwargs: dict[str, Any] = {}


class IfevalArgs(Args):
    """All instructions of a prompt."""

    instructions: Sequence[Instruction]


def loosened(text: str) -> list[str]:
    """The eight readings of the loose score: without first, last, or both lines, each also without asterisks."""
    lines = text.split("\n")
    cuts = [text, "\n".join(lines[1:]).strip(), "\n".join(lines[:-1]).strip(), "\n".join(lines[1:-1]).strip()]
    return cuts + [cut.replace("*", "") for cut in cuts]


def follows(text: str, instruction: Instruction) -> bool:
    """Whether an answer follows an instruction; an empty one follows none. Raises KeyError for an unknown id."""
    return bool(text.strip()) and CHECKERS[instruction.id](text, instruction.kwargs)


def ifeval(message: Message, args: IfevalArgs) -> Reading:
    """1 where every instruction is followed strictly; `parts` count what the four numbers of IFEval are made of."""
    text = text_of(message)
    strict = [text is not None and follows(text, one) for one in args.instructions]
    loose = [text is not None and any(follows(cut, one) for cut in loosened(text)) for one in args.instructions]
    parts = {
        "instructions": float(len(strict)), "strict": float(sum(strict)), "loose": float(sum(loose)),
        "prompt_strict": float(all(strict)), "prompt_loose": float(all(loose)),
    }  # fmt: skip
    broken = [one.id for one, held in zip(args.instructions, strict, strict=True) if not held]
    return Reading(float(not broken), "right" if not broken else f"broken: {', '.join(broken)}", text, parts)
