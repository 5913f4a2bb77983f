"""Phrases of apologies and refusals in the project's eight languages, and what counts as an emoji."""

import functools
import re
import unicodedata

APOLOGIES = (
    "i'm sorry", "i am sorry", "i'm so sorry", "i apologize", "i apologise", "my apologies", "sorry for", "sorry about",
    "es tut mir leid", "tut mir leid", "ich entschuldige mich", "ich bitte um entschuldigung", "entschuldigung",
    "je suis désolé", "je suis désolée", "désolé", "désolée", "je m'excuse", "toutes mes excuses", "mes excuses",
    "mi dispiace", "mi scuso", "chiedo scusa", "le mie scuse",
    "sinto muito", "me desculpe", "desculpe", "peço desculpas", "minhas desculpas",
    "lo siento", "me disculpo", "mis disculpas", "pido disculpas", "lamento mucho",
    "मुझे खेद है", "मुझे अफ़सोस है", "क्षमा करें", "क्षमा कीजिए", "माफ़ करें", "माफ़ कीजिए", "मैं माफ़ी", "maaf kijiye", "maaf karein",
    "ขอโทษ", "ขออภัย",
)  # fmt: skip
"""P 4.2.3 names "I'm sorry" and "I apologize"; the others say the same."""

REFUSALS = (
    "i can't help with", "i cannot help with", "i can't assist with", "i cannot assist with", "i can't provide",
    "i cannot provide", "i'm not able to", "i am not able to", "i'm unable to", "i am unable to", "i can't fulfill",
    "i cannot fulfill", "i can't answer", "i cannot answer", "i won't be able to", "i must decline", "as an ai",
    "as a language model", "as a large language model", "i'm just an ai", "i don't have the ability to",
    "ich kann ihnen nicht helfen", "ich kann dir nicht helfen", "dabei kann ich nicht helfen",
    "dabei kann ich ihnen nicht", "ich bin nicht in der lage", "als ki", "als sprachmodell",
    "je ne peux pas vous aider", "je ne peux pas t'aider", "je ne peux pas répondre", "je ne suis pas en mesure",
    "je ne peux pas fournir", "en tant qu'ia", "en tant que modèle de langage", "en tant qu'intelligence artificielle",
    "non posso aiutarti", "non posso aiutarla", "non posso fornire", "non sono in grado di",
    "come modello linguistico", "in quanto ia", "come intelligenza artificiale",
    "não posso ajudar", "não posso fornecer", "não consigo ajudar", "não sou capaz de", "como um modelo de linguagem",
    "como uma ia", "no puedo ayudarte", "no puedo ayudarle", "no puedo ayudar con", "no puedo proporcionar",
    "no soy capaz de", "como modelo de lenguaje", "como una ia", "como inteligencia artificial",
    "मैं इसमें मदद नहीं कर सकता", "मैं इसमें मदद नहीं कर सकती", "मैं आपकी मदद नहीं कर सकता", "मैं आपकी मदद नहीं कर सकती",
    "एक एआई के रूप में", "एक भाषा मॉडल के रूप में",
    "ฉันไม่สามารถช่วย", "ผมไม่สามารถช่วย", "ดิฉันไม่สามารถช่วย", "ไม่สามารถให้ข้อมูล", "ในฐานะโมเดลภาษา", "ในฐานะ ai",
)  # fmt: skip
"""Beginnings of answers that decline. A rule of thumb: what they miss, the judge of `quality` may see."""

_PICTURE = (
    "\u231a\u231b\u23e9-\u23f3\u25fd\u25fe\u2600-\u2604\u260e\u2611\u2614\u2615\u2618\u261d\u2620-\u2623\u2626\u262a"
    "\u262e\u262f\u2638-\u263a\u2648-\u2653\u265f\u2660\u2663\u2665\u2666\u2668\u267b\u267e\u267f\u2692-\u2697\u2699"
    "\u269b\u269c\u26a0\u26a1\u26a7\u26aa\u26ab\u26b0\u26b1\u26bd\u26be\u26c4\u26c5\u26c8\u26ce\u26cf\u26d1\u26d3\u26d4"
    "\u26e9\u26ea\u26f0-\u26f5\u26f7-\u26fa\u26fd\u2702\u2705\u2708-\u270d\u270f\u2728\u2733\u2734\u2744\u2747\u274c"
    "\u274e\u2753-\u2755\u2757\u2763\u2764\u2795-\u2797\u27b0\u27bf\u2b50\u2b55\U0001f004\U0001f0cf\U0001f18e"
    "\U0001f191-\U0001f19a\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7eb\U0001f90c-\U0001f9ff"
    "\U0001fa70-\U0001faff"
)
"""Unicode's emoji-data.txt (15.1), `Emoji` without digits, ©, ®, arrows, ✔ and other marks of plain typography."""
_ONE = rf"[{_PICTURE}][\ufe0f\U0001f3fb-\U0001f3ff]*"
EMOJI = re.compile(rf"[\U0001f1e6-\U0001f1ff]{{2}}|{_ONE}(?:\u200d{_ONE})*")
"""One emoji as a reader sees it: flags, skin tones and joined pictures are one."""


def plain(text: str) -> str:
    """What phrases are looked for in: NFC, case-folded, straight apostrophes, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().replace("’", "'").split())


@functools.cache
def pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the phrases in a `plain` text; where a phrase begins or ends in a Latin letter, at a word's edge."""
    parts = []
    for phrase in sorted(map(plain, phrases), key=len, reverse=True):
        before = r"\b" if phrase[0].isalpha() and phrase[0] < "\u0250" else ""
        after = r"\b" if phrase[-1].isalpha() and phrase[-1] < "\u0250" else ""
        parts.append(before + re.escape(phrase) + after)
    return re.compile("|".join(parts))
