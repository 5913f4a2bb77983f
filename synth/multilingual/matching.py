"""Whether two texts match: in language and script, in their numbers, in length."""

import re
import unicodedata
from collections import Counter

from posttrain.checks.language import UNDETERMINED, identify

NUMBER = re.compile(r"\d+(?:[.,\u00a0\u202f]\d+)*")
MOST_RATIO = 3.0
"""Between the lengths of a text and its translation, in characters; Thai and Hindi are the shortest and longest."""
LEAST_CHARACTERS = 40
"""Shorter texts may differ by more."""


def matches(prompt: str, answer: str) -> str:
    """Why an answer is not in its prompt's language or script, if so: Hindi in Latin letters must not be answered in
    Devanagari, nor the other way round (P 4.3.2)."""
    asked, said = identify(prompt)[0], identify(answer)[0]
    if UNDETERMINED in (asked, said):
        return ""
    if asked != said:
        return "answer in another language"
    return "" if asked != "hi" or latin(prompt) == latin(answer) else "answer in another script"


def latin(text: str) -> bool:
    """Whether most letters of a text are Latin."""
    letters = [letter for letter in text if letter.isalpha()]
    return 2 * sum("LATIN" in unicodedata.name(letter, "") for letter in letters) > len(letters)


def numbers(text: str) -> Counter[str]:
    """The numbers of a text, whatever its digits and separators: `1,234.50`, `1.234,50` and `1 234,50` are the same."""
    digits = "".join(str(unicodedata.digit(sign)) if sign.isdigit() else sign for sign in text)
    return Counter(_plain(found) for found in NUMBER.findall(digits))


def _plain(number: str) -> str:
    """Groups of three are thousands; what else follows the last mark is the fraction, without zeros at its end."""
    *groups, last = re.split(r"[.,\u00a0\u202f]", number)
    marks = re.findall(r"[.,\u00a0\u202f]", number)
    if not groups or (len(last) == 3 and len(set(marks)) == 1):
        return "".join([*groups, last]).lstrip("0") or "0"
    whole = "".join(groups).lstrip("0") or "0"
    fraction = last.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def unlike(source: str, translation: str) -> str:
    """Why a text cannot be the other's translation, if so: the same text, other numbers, or much longer or shorter."""
    if source.split() == translation.split():
        return "not translated"
    if numbers(source) != numbers(translation):
        return "other numbers"
    short, long = sorted((len(source), len(translation)))
    return "other length" if long > LEAST_CHARACTERS and long > MOST_RATIO * short else ""
