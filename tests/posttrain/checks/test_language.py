"""Languages by script, by romanised words and by py3langid, on sentences written for this test."""

import pytest

from posttrain.checks.language import OTHER, UNDETERMINED, identify
from posttrain.data.rows import LANGUAGES

SENTENCES = {
    "en": ["The train leaves at nine, so please be early.", "She bought three apples and a loaf of bread."],
    "de": ["Der Zug fährt um neun Uhr ab, komm bitte früher.", "Sie hat drei Äpfel und ein Brot gekauft."],
    "fr": ["Le train part à neuf heures, viens plus tôt.", "Elle a acheté trois pommes et du pain."],
    "it": ["Il treno parte alle nove, vieni prima per favore.", "Ha comprato tre mele e una pagnotta di pane."],
    "pt": ["O comboio parte às nove, por isso não te atrases.", "Ela comprou três maçãs e um pão na padaria."],
    "hi": ["रेलगाड़ी नौ बजे चलती है, जल्दी आना।", "उसने तीन सेब और एक रोटी खरीदी।"],
    "es": ["El tren sale a las nueve, así que llega temprano.", "Ella compró tres manzanas y un pan en la tienda."],
    "th": ["รถไฟออกเก้าโมง กรุณามาก่อนเวลา", "เธอซื้อแอปเปิลสามลูกและขนมปังหนึ่งก้อน"],
}
ROMANISED = [
    "aaj mausam kaisa hai", "mujhe batao ki Delhi mein kya ho raha hai", "main kal office nahi aa sakta hoon",
    "aap kaise hain, sab theek hai?", "yeh kitaab bahut acchi hai, zaroor padhna", "tum kahan ja rahe ho abhi",
    "uska phone band hai isliye baat nahi hui", "kya aap meri madad kar sakte hain please",
    "humne kal raat movie dekhi thi", "woh ghar par nahi hai", "bill kitna hua hai bhaiya",
    "agar barish hui toh match nahi hoga", "mera order abhi tak nahi aaya hai", "chai ke saath kuch khaoge kya",
    "iska matlab kya hai", "station yahan se kitni door hai",
]  # fmt: skip
LOOKALIKES = [
    "The main thing is to see me at the bar.", "Die Hose ist zu gross, aber der Rock passt.",
    "Se me olvido la llave en la casa de Ana.", "La mia casa è dove sono le mie cose.", "Tu as le ticket de bus ?",
    "A mesa e a cadeira estão no mesmo lugar.", "Paris hat viele Lokale, und der Chai ist gut.",
    "Hum the tune and then jab the button to kill the sound.", "Che fai? Ho perso il treno per Pisa.",
]  # fmt: skip


def test_every_language_has_sentences() -> None:
    assert SENTENCES.keys() == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_sentence_is_in_its_language(language: str) -> None:
    for sentence in SENTENCES[language]:
        found, probability = identify(sentence)
        assert (found, probability > 0.5) == (language, True), sentence


def test_romanised_hindi_is_hindi_and_what_resembles_it_is_not() -> None:
    found = [identify(text)[0] for text in ROMANISED]
    assert found.count("hi") >= 15, [text for text, language in zip(ROMANISED, found, strict=True) if language != "hi"]
    assert "hi" not in [identify(text)[0] for text in LOOKALIKES]


@pytest.mark.parametrize("text", ["", "42", "x = 3", "https://example.org/der/die/das", "```\nfor i in x: pass\n```"])
def test_too_few_letters_say_nothing(text: str) -> None:
    assert identify(text) == (UNDETERMINED, 0.0)


def test_another_script_is_another_language() -> None:
    assert identify("Привет, как дела?") == (OTHER, 1.0)
    assert identify("今日は天気がいいですね")[0] == OTHER


def test_code_does_not_count() -> None:
    assert identify("Das ist die Lösung:\n```python\nfor item in the_list: print(item)\n```\nSie läuft.")[0] == "de"
