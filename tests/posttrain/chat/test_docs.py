"""The pages that show renderings show what is rendered."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_dialects_and_masks_are_documented_as_they_are() -> None:
    spec = importlib.util.spec_from_file_location("chat_pages", ROOT / "docs" / "chat_pages.py")
    assert spec is not None and spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    assert pages.main(["--check"]) == 0
    trained = [
        text for text, label in pages.labelled(pages.Renderer.from_pretrained(pages.TOKENIZER)) if label == "trained"
    ]
    assert "".join(trained) == 'It does. Let me look.<|python_tag|>brave_search.call(query="rain today")Yes.'


def test_the_tiny_family_carries_our_template() -> None:
    ours = (ROOT / "posttrain" / "chat" / "llama31.jinja").read_text(encoding="utf-8")
    for name in ("base", "teacher"):
        folder = ROOT / "posttrain" / "tiny" / name
        assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == ours
