"""What users say in the eight languages around a task: to choose an answer, to answer from a text, to translate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    """`choose` stands below a question with its choices, `read` above a text, `into` above a text to translate into
    this language, `answer` is what the assistant says of a choice `{letter}` and its `{text}`."""

    choose: tuple[str, ...]
    read: tuple[str, ...]
    into: tuple[str, ...]
    answer: str


PHRASES = {
    "en": Phrases(
        ("Which answer is right?", "Choose the right answer and name its letter."),
        ("Answer the question from this text.", "Read the text, then answer the question below it."),
        ("Translate this into English:", "Please say the following in English."),
        "The right answer is {letter}: {text}",
    ),
    "de": Phrases(
        ("Welche Antwort ist richtig?", "Wähle die richtige Antwort und nenne ihren Buchstaben."),
        ("Beantworte die Frage anhand dieses Textes.", "Lies den Text und beantworte dann die Frage darunter."),
        ("Übersetze das ins Deutsche:", "Bitte sag das Folgende auf Deutsch."),
        "Richtig ist die Antwort {letter}: {text}",
    ),
    "fr": Phrases(
        ("Quelle réponse est la bonne ?", "Choisis la bonne réponse et donne sa lettre."),
        ("Réponds à la question à partir de ce texte.", "Lis le texte, puis réponds à la question ci-dessous."),
        ("Traduis ceci en français :", "Dis ce qui suit en français, s'il te plaît."),
        "La bonne réponse est la réponse {letter} : {text}",
    ),
    "it": Phrases(
        ("Qual è la risposta giusta?", "Scegli la risposta giusta e indica la sua lettera."),
        ("Rispondi alla domanda in base a questo testo.", "Leggi il testo, poi rispondi alla domanda qui sotto."),
        ("Traduci questo in italiano:", "Per favore, di' quanto segue in italiano."),
        "La risposta giusta è la {letter}: {text}",
    ),
    "pt": Phrases(
        ("Qual é a resposta certa?", "Escolha a resposta certa e indique a sua letra."),
        ("Responda à pergunta com base neste texto.", "Leia o texto e depois responda à pergunta abaixo."),
        ("Traduza isto para português:", "Por favor, diga o seguinte em português."),
        "A resposta certa é a {letter}: {text}",
    ),
    "hi": Phrases(
        ("कौन सा उत्तर सही है?", "सही उत्तर चुनिए और उसका अक्षर बताइए।"),
        ("इस पाठ के आधार पर प्रश्न का उत्तर दीजिए।", "पाठ पढ़िए, फिर नीचे दिए प्रश्न का उत्तर दीजिए।"),
        ("इसका हिन्दी में अनुवाद कीजिए:", "कृपया नीचे लिखी बात हिन्दी में कहिए।"),
        "सही उत्तर {letter} है: {text}",
    ),
    "es": Phrases(
        ("¿Qué respuesta es la correcta?", "Elige la respuesta correcta e indica su letra."),
        ("Responde a la pregunta a partir de este texto.", "Lee el texto y luego responde a la pregunta de abajo."),
        ("Traduce esto al español:", "Por favor, di lo siguiente en español."),
        "La respuesta correcta es la {letter}: {text}",
    ),
    "th": Phrases(
        ("คำตอบใดถูกต้อง", "เลือกคำตอบที่ถูกต้องและบอกตัวอักษรของคำตอบนั้น"),
        ("จงตอบคำถามจากข้อความนี้", "อ่านข้อความ แล้วตอบคำถามด้านล่าง"),
        ("แปลข้อความนี้เป็นภาษาไทย:", "ช่วยพูดข้อความต่อไปนี้เป็นภาษาไทย"),
        "คำตอบที่ถูกต้องคือ {letter}: {text}",
    ),
}
