"""Words and sentences of the world's eight languages.

Sentences avoid what would need grammar (elision, gender, case): items of one language share a gender, numbers are
digits, names are Latin letters. `{n}` and `{m}` are people, `{a} {b} {k}` numbers, `{i}` an item, `{d} {e}` weekdays,
`{x} {y}` qualities.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """`owns` asks what somebody has; `more` and `fewer` change a `has` sentence's number; `later` is 1, 2 days on."""

    items: tuple[str, ...]
    days: tuple[str, ...]
    opposites: tuple[tuple[str, str], ...]
    owns: str
    has: str
    how_many: str
    more: str
    fewer: str
    comes: str
    later: tuple[str, str]
    when: str
    tea: str
    opposite: str
    how_tea: str
    question: str


def _pairs(words: str) -> tuple[tuple[str, str], ...]:
    return tuple((pair.split("/")[0], pair.split("/")[1]) for pair in words.split())


def _words(words: str) -> tuple[str, ...]:
    return tuple(words.split())


TABLE: dict[str, Language] = {
    "en": Language(
        _words("apples pears keys pens cups balls"),
        _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
        _pairs("hot/cold sweet/bitter strong/weak good/bad"),
        "What does {n} have?", "{n} has {k} {i}.", "How many {i} does {n} have?", "{n} has {a} {i}. Then {b} more.",
        "{n} has {a} {i}. Then {b} fewer.", "{n} comes on {d}.",
        ("{m} comes one day later.", "{m} comes two days later."), "When does {m} come?",
        "The tea of {n} is {x}.", "The tea of {m} is the opposite.", "How is the tea of {m}?", "Question:",
    ),
    "de": Language(
        _words("Äpfel Birnen Schlüssel Stifte Tassen Bälle"),
        _words("Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonntag"),
        _pairs("heiß/kalt süß/bitter stark/schwach gut/schlecht"),
        "Was hat {n}?", "{n} hat {k} {i}.", "Wie viele {i} hat {n}?", "{n} hat {a} {i}. Dann {b} mehr.",
        "{n} hat {a} {i}. Dann {b} weniger.", "{n} kommt am {d}.",
        ("{m} kommt einen Tag später.", "{m} kommt zwei Tage später."), "Wann kommt {m}?",
        "Der Tee von {n} ist {x}.", "Der Tee von {m} ist das Gegenteil.", "Wie ist der Tee von {m}?", "Frage:",
    ),
    "fr": Language(
        _words("pommes poires clés plumes tasses balles"),
        _words("lundi mardi mercredi jeudi vendredi samedi dimanche"),
        _pairs("chaud/froid sucré/amer fort/faible bon/mauvais"),
        "Qu'est-ce que {n} a ?", "{n} a {k} {i}.", "Combien de {i} a {n} ?", "{n} a {a} {i}. Puis {b} de plus.",
        "{n} a {a} {i}. Puis {b} de moins.", "{n} vient le {d}.",
        ("{m} vient un jour plus tard.", "{m} vient deux jours plus tard."), "Quand vient {m} ?",
        "Le thé pour {n} est {x}.", "Le thé pour {m} est le contraire.", "Comment est le thé pour {m} ?", "Question :",
    ),
    "it": Language(
        _words("mele pere chiavi penne tazze palle"),
        _words("lunedì martedì mercoledì giovedì venerdì sabato domenica"),
        _pairs("caldo/freddo dolce/amaro forte/debole buono/cattivo"),
        "Che cosa ha {n}?", "{n} ha {k} {i}.", "Quante {i} ha {n}?", "{n} ha {a} {i}. Poi {b} in più.",
        "{n} ha {a} {i}. Poi {b} in meno.", "{n} viene {d}.",
        ("{m} viene un giorno dopo.", "{m} viene due giorni dopo."), "Quando viene {m}?",
        "Il tè di {n} è {x}.", "Il tè di {m} è il contrario.", "Com'è il tè di {m}?", "Domanda:",
    ),
    "pt": Language(
        _words("maçãs peras chaves canetas xícaras bolas"),
        _words("segunda terça quarta quinta sexta sábado domingo"),
        _pairs("quente/frio doce/amargo forte/fraco bom/mau"),
        "O que tem {n}?", "{n} tem {k} {i}.", "Quantas {i} tem {n}?", "{n} tem {a} {i}. Depois mais {b}.",
        "{n} tem {a} {i}. Depois menos {b}.", "O dia de {n} é {d}.",
        ("O dia de {m} é um dia depois.", "O dia de {m} é dois dias depois."), "Qual é o dia de {m}?",
        "O chá de {n} é {x}.", "O chá de {m} é o contrário.", "Como é o chá de {m}?", "Pergunta:",
    ),
    "es": Language(
        _words("manzanas peras llaves plumas tazas pelotas"),
        _words("lunes martes miércoles jueves viernes sábado domingo"),
        _pairs("caliente/frío dulce/amargo fuerte/débil bueno/malo"),
        "¿Qué tiene {n}?", "{n} tiene {k} {i}.", "¿Cuántas {i} tiene {n}?", "{n} tiene {a} {i}. Luego {b} más.",
        "{n} tiene {a} {i}. Luego {b} menos.", "{n} viene el {d}.",
        ("{m} viene un día después.", "{m} viene dos días después."), "¿Cuándo viene {m}?",
        "El té de {n} es {x}.", "El té de {m} es lo contrario.", "¿Cómo es el té de {m}?", "Pregunta:",
    ),
    "hi": Language(
        _words("सेब नाशपाती चाबी पेन कप गेंद"),
        _words("सोमवार मंगलवार बुधवार गुरुवार शुक्रवार शनिवार रविवार"),
        _pairs("गरम/ठंडी मीठी/कड़वी तेज़/हल्की अच्छी/खराब"),
        "{n} के पास क्या है?", "{n} के पास {k} {i} हैं।", "{n} के पास {i} की कुल संख्या?", "{n} के पास {a} {i} हैं। फिर {b} और।",
        "{n} के पास {a} {i} हैं। फिर {b} कम।", "{n} का दिन {d} है।",
        ("{m} का दिन एक दिन बाद है।", "{m} का दिन दो दिन बाद है।"), "{m} का दिन कौन सा है?",
        "{n} की चाय {x} है।", "{m} की चाय इसके विपरीत है।", "{m} की चाय कैसी है?", "प्रश्न:",
    ),
    "th": Language(
        _words("แอปเปิล ลูกแพร์ กุญแจ ปากกา ถ้วย ลูกบอล"),
        _words("วันจันทร์ วันอังคาร วันพุธ วันพฤหัสบดี วันศุกร์ วันเสาร์ วันอาทิตย์"),
        _pairs("ร้อน/เย็น หวาน/ขม เข้ม/อ่อน ดี/แย่"),
        "{n} มีอะไร", "{n} มี {i} {k} อัน", "{n} มี {i} กี่อัน", "{n} มี {i} {a} อัน แล้วเพิ่ม {b} อัน",
        "{n} มี {i} {a} อัน แล้วลด {b} อัน", "{n} มา {d}",
        ("{m} มาหนึ่งวันต่อมา", "{m} มาสองวันต่อมา"), "{m} มาวันไหน",
        "ชาของ {n} {x}", "ชาของ {m} ตรงกันข้าม", "ชาของ {m} เป็นอย่างไร", "คำถาม:",
    ),
}  # fmt: skip

SCRIPTS = {"hi": ("\u0900", "\u097f"), "th": ("\u0e00", "\u0e7f")}
"""First and last letter of the scripts that are not Latin."""

ENGLISH_NAMES = {
    "en": "English", "de": "German", "fr": "French", "it": "Italian", "pt": "Portuguese", "es": "Spanish",
    "hi": "Hindi", "th": "Thai",
}  # fmt: skip
