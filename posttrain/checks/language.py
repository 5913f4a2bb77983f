"""Which of the project's eight languages a text is in, offline.

The script decides for Hindi in Devanagari and for Thai; a short list of function words decides for Hindi in Latin
letters, which no small identifier knows; py3langid, held to the six Latin-script languages, decides the rest.
What it gets right and wrong is in docs/selection.md.
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from posttrain.data.rows import LANGUAGES

UNDETERMINED = "und"
"""The ISO 639 code of a text that has too few letters to say anything: `42`, `x = 3`, an empty one."""
OTHER = "other"
"""A text that is mostly in a script that none of the eight languages is written in."""

SCRIPTS = {"DEVANAGARI": "hi", "THAI": "th"}
LATIN = tuple(language for language in LANGUAGES if language not in SCRIPTS.values())
LEAST_LETTERS = 4
"""Fewer letters than these say nothing about a language."""

ROMANISED_WORDS = frozenset(
    """aaj aap aapka aapke aapki aapko aaya aaye aayega aayi abhi accha acha achha agar apna apne apni aur baat
    bahut baje bata bataiye batana batao bhai bhi chahie chahiye chalo dena dhanyavaad din diya diye ek gaya
    gaye gayi ghar haan hai hain hamara hamare hamein hoga hogi honge hota hote hoti hua hui humein humne
    iska iske iski isme ismein jab jaise jaldi jana jata jate jati ji jisse jo kab kabhi kaha kahan kaisa
    kaise kaisi kal karein karna karne karo karta karte karti kaun ke ki kijiye kitna kitne kitni kiya kiye
    ko koi kuch kuchh kya kyon kyun kyunki lekin liye log magar maine mein mera mere meri milega mujhe
    mujhko nahi nahin namaste paas padega phir raat raha rahe rahi saath sab sakta sakte sakti shukriya
    subah tak tera tha theek thi toh tumhara tumhare tumhe unka unke uska uske uski usne waha wahan wala
    wale wali woh yaar yaha yahan yeh zaroor zyada""".split()
)
"""Common words of Hindi in Latin letters as people type it, without those that are also common words of the six
Latin-script languages (`main`, `se`, `me`, `ka`, `the`, `to`)."""
ROMANISED_LEAST = 2
ROMANISED_SHARE = 0.2
"""So many different ones of these words, and so large a share of all words, make a text romanised Hindi."""

_ASIDE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|\S+@\S+\.\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")


def identify(text: str) -> tuple[str, float]:
    """The language of a text (a code of LANGUAGES, OTHER or UNDETERMINED) and how probable it is, 0 to 1.

    Code between backticks, links and addresses are left aside. UNDETERMINED comes with 0.0; OTHER, and a language that
    its script gives away, with the share of letters in that script; romanised Hindi with the share of its words that
    are in the list, at least 0.5; the rest with py3langid's probability among the six.
    """
    prose = _ASIDE.sub(" ", unicodedata.normalize("NFC", text))
    letters = [letter for letter in prose if letter.isalpha()]
    if len(letters) < LEAST_LETTERS:
        return UNDETERMINED, 0.0
    script, share = _script(letters)
    if script != "LATIN":
        return SCRIPTS.get(script, OTHER), share
    romanised = _romanised(prose)
    if romanised:
        return "hi", max(0.5, romanised)
    language, probability = _latin()(prose)
    return language, float(probability)


def _script(letters: list[str]) -> tuple[str, float]:
    """The most frequent script by the first word of the letters' Unicode names, and its share of the letters."""
    script, count = Counter(unicodedata.name(letter, "NONE").split()[0] for letter in letters).most_common(1)[0]
    return script, count / len(letters)


def _romanised(prose: str) -> float:
    """The share of words that are romanised Hindi; 0 where they are too few to say so."""
    words = [word.casefold() for word in _WORD.findall(prose)]
    known = [word for word in words if word in ROMANISED_WORDS]
    enough = len(set(known)) >= ROMANISED_LEAST and len(known) >= ROMANISED_SHARE * len(words)
    return len(known) / len(words) if enough else 0.0


@functools.cache
def _latin() -> Callable[[str], tuple[str, float]]:
    """py3langid's classifier of the six; its model takes a second to load, so only where one is asked."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LATIN)
    classify: Callable[[str], tuple[str, float]] = identifier.classify
    return classify
