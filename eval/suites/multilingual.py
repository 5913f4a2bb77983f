"""Word problems in eight languages in the manner of MGSM: the final number after each language's own "Answer:"."""

import random
from collections.abc import Iterator
from string import Formatter

from eval.scorers.answers import PREFIXES
from eval.suites.making import Answering, Item, asks, file_items, reference, says, write_suite
from eval.suites.multilingual_spec import MultilingualConfig
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job

INSTRUCTIONS = {
    "en": "Solve this math problem. Give the reasoning steps before giving the final answer on the last line by itself"
    ' in the format of "Answer:". Do not add anything other than the integer answer after "Answer:".',
    "de": "Löse dieses Mathematikproblem. Gib die Schritte zur Begründung an, bevor du die endgültige Antwort in der"
    ' letzten Zeile alleine im Format "Antwort:" gibst. Füge nichts anderes als die ganzzahlige Antwort nach'
    ' "Antwort:" hinzu.',
    "fr": "Résolvez ce problème de mathématiques. Donnez les étapes de raisonnement avant de fournir la réponse finale"
    " sur la dernière ligne elle-même dans le format de \"Réponse:\". N'ajoutez rien d'autre que la réponse entière"
    ' après "Réponse:".',
    "es": "Resuelve este problema matemático. Proporciona los pasos de razonamiento antes de dar la respuesta final en"
    ' la última línea por sí misma en el formato de "Respuesta:". No añadas nada más que la respuesta entera después'
    ' de "Respuesta:".',
    "th": "แก้ปัญหาคณิตศาสตร์นี้ ให้ให้ขั้นตอนการใช้เหตุผลก่อนที่จะให้คำตอบสุดท้ายในบรรทัดสุดท้ายโดยอยู่ในรูปแบบ"
    ' "คำตอบ:" ไม่ควรเพิ่มอะไรนอกจากคำตอบที่เป็นจำนวนเต็มหลังจาก "คำตอบ:"',
    "it": "Risolvi questo problema di matematica. Scrivi i passaggi prima di dare la risposta finale da sola"
    ' nell\'ultima riga nel formato "Risposta:". Dopo "Risposta:" non aggiungere altro che il numero intero.',
    "pt": "Resolva este problema de matemática. Dê os passos do raciocínio antes de dar a resposta final sozinha na"
    ' última linha no formato "Resposta:". Depois de "Resposta:" não acrescente nada além do número inteiro.',
    "hi": 'यह गणित का सवाल हल करें। पहले हल के चरण लिखें, फिर अंतिम उत्तर अकेले आखिरी पंक्ति में "उत्तर:" के रूप में दें। '
    '"उत्तर:" के बाद पूर्णांक के सिवा कुछ न लिखें।',
}
"""en, de, fr, es and th as in openai/simple-evals mgsm_eval.py; it, pt and hi are ours in the same words."""
PROBLEMS: dict[str, tuple[str, str]] = {
    "en": ("Anna has {a} apples and buys {b} more. She gives {c} of them away. How many apples does she have?",
           "A box holds {a} pens. There are {b} boxes, and {c} pens are lost. How many pens are left?"),
    "de": ("Anna hat {a} Äpfel und kauft {b} dazu. Sie verschenkt {c} davon. Wie viele Äpfel hat sie?",
           "In einer Schachtel sind {a} Stifte. Es gibt {b} Schachteln, und {c} Stifte gehen verloren. Wie viele "
           "Stifte bleiben?"),
    "fr": ("Anna a {a} pommes et en achète {b} de plus. Elle en donne {c}. Combien de pommes a-t-elle ?",
           "Une boîte contient {a} stylos. Il y a {b} boîtes, et {c} stylos sont perdus. Combien de stylos "
           "reste-t-il ?"),
    "it": ("Anna ha {a} mele e ne compra altre {b}. Ne regala {c}. Quante mele ha?",
           "Una scatola contiene {a} penne. Ci sono {b} scatole e {c} penne vanno perse. Quante penne restano?"),
    "pt": ("Anna tem {a} maçãs e compra mais {b}. Ela dá {c} delas. Quantas maçãs ela tem?",
           "Uma caixa tem {a} canetas. Há {b} caixas, e {c} canetas se perdem. Quantas canetas sobram?"),
    "hi": ("अन्ना के पास {a} सेब हैं और वह {b} और खरीदती है। वह उनमें से {c} दे देती है। उसके पास कितने सेब हैं?",
           "एक डिब्बे में {a} कलम हैं। {b} डिब्बे हैं, और {c} कलम खो जाते हैं। कितने कलम बचे?"),
    "es": ("Anna tiene {a} manzanas y compra {b} más. Regala {c}. ¿Cuántas manzanas tiene?",
           "Una caja contiene {a} bolígrafos. Hay {b} cajas y se pierden {c} bolígrafos. ¿Cuántos bolígrafos quedan?"),
    "th": ("แอนนามีแอปเปิล {a} ผลและซื้อเพิ่มอีก {b} ผล เธอแจกไป {c} ผล เธอมีแอปเปิลกี่ผล",
           "กล่องหนึ่งมีปากกา {a} ด้าม มีทั้งหมด {b} กล่อง และปากกาหายไป {c} ด้าม เหลือปากกากี่ด้าม"),
}  # fmt: skip
"""Language → a sum with a difference, a product with a difference."""


def run(job: Job) -> None:
    items = file_items(job, _of_record) if "file" in job.inputs else _made(job.config)
    if "file" in job.inputs:
        items = (item for item in items if item.language in job.config.languages)
    write_suite(job, items, Answering("multilingual", max_new_tokens=job.config.max_new_tokens))


def _made(config: MultilingualConfig) -> Iterator[Item]:
    rng, count = random.Random(f"multilingual {config.seed}"), 0
    seen: set[tuple[int, ...]] = set()
    while count < config.n:
        which, a, b, c = rng.randrange(2), rng.randint(11, 60), rng.randint(3, 40), rng.randint(2, 10)
        if (which, a, b, c) in seen:
            continue
        seen.add((which, a, b, c))
        for language in config.languages[: config.n - count]:
            text = Formatter().format(PROBLEMS[language][which], a=a, b=b, c=c)
            answer = (a + b if which == 0 else a * b) - c
            yield _item(text, answer, language, {"cluster": f"{which}-{a}-{b}-{c}"})
            count += 1


def _item(question: str, answer: int | float, language: str, about: dict[str, object]) -> Item:
    prefix = PREFIXES[language]
    check = Check("final_number", {"answer": answer, "prefix": prefix})
    return Item(asks(f"{INSTRUCTIONS[language]}\n\n{question}"), check, says(f"{prefix}: {answer}"),
                language=language, about=about)  # fmt: skip


def _of_record(record: Record) -> Item:
    language = str(reference(record, "language"))
    if language not in INSTRUCTIONS:
        raise ValueError(f"has the language {language!r}; known are {', '.join(INSTRUCTIONS)}")
    number = str(reference(record, "answer_number", "answer")).replace(",", "")
    cluster = {"cluster": str(record["cluster"])} if record.get("cluster") is not None else {}
    value = float(number)
    return _item(reference(record, "question"), int(value) if value.is_integer() else value, language, {**cluster})
