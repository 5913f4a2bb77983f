"""Stock templates: their marked twins say the same text, and one without a proven twin is refused."""

import copy
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.chat import Renderer, build_tokenizer
from posttrain.errors import UserError

from .cases import conversations, message_with, plain_text, tool_lists

TRL = find_spec("trl")
FOLDER = Path(str(TRL and TRL.origin)).parent / "chat_templates"
STOCK = {name: (FOLDER / f"{name}.jinja").read_text(encoding="utf-8") for name in ("llama3", "llama3_1", "llama3_2")}
LLAMA33_SHA256 = "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65"
"""Of Meta's template for Llama-3.3-70B-Instruct, from the copy in llama.cpp's models/templates, read on 2026-11-20."""
USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Yo"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALL = message_with({"name": "f", "arguments": {}})


def with_template(renderer: Renderer, template: str, **changes: Any) -> Renderer:
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template = template
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return Renderer(tokenizer)


@pytest.fixture(scope="module")
def twins(renderer: Renderer) -> dict[str, Renderer]:
    return {name: with_template(renderer, template, pad_token=None) for name, template in STOCK.items()}


@pytest.mark.parametrize("name", STOCK)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_ids_are_the_stock_ones_and_the_answers_are_trained(
    twins: dict[str, Renderer], name: str, data: st.DataObject
) -> None:
    most = 0 if name == "llama3" else 1
    messages = data.draw(conversations(plain_text, most, names=st.from_regex(r"[a-z_.]{1,9}", fullmatch=True)))
    tools = data.draw(tool_lists(plain_text)) if most else []
    twin = twins[name]
    ours = twin.conversation(messages, tools, train="all")
    dated = {} if name == "llama3" else {"date_string": "26 Jul 2024"}
    theirs = twin.tokenizer.apply_chat_template(
        messages, tools=tools or None, chat_template=STOCK[name], return_dict=False, **dated
    )
    assert ours.ids == theirs
    answers = [twin.text(m, tools) for m in messages if m["role"] == "assistant"]
    trained = [token for token, mask in zip(ours.ids, ours.mask, strict=True) if mask]
    assert twin.tokenizer.decode(trained) == "".join(f"{answer}<|eot_id|>" for answer in answers)


def test_a_stock_tokenizer_gets_its_padding_token_and_says_the_same_when_saved(
    twins: dict[str, Renderer], tmp_path: Path
) -> None:
    for name, twin in twins.items():
        assert (twin.dialect, twin.tokenizer.pad_token) == ("hf", "<|finetune_right_pad_id|>")
        twin.tokenizer.save_pretrained(tmp_path / name)
        again = Renderer.from_pretrained(tmp_path / name)
        assert again.conversation([USER, ANSWER]) == twin.conversation([USER, ANSWER])
        assert again.tokenizer.chat_template == twin.tokenizer.chat_template


def test_the_date_of_llama_3_2_is_fixed_also_where_it_is_served(twins: dict[str, Renderer], renderer: Renderer) -> None:
    for twin, date in (
        (twins["llama3_2"], "26 Jul 2024"),
        (Renderer(copy.deepcopy(twins["llama3_2"].tokenizer), date="20 Nov 2026"), "20 Nov 2026"),
    ):
        served = twin.tokenizer.apply_chat_template([USER, ANSWER], tokenize=False)
        assert f"Today Date: {date}\n" in served
        assert twin.tokenizer.decode(twin.conversation([USER, ANSWER]).ids) == served


def test_a_llama_3_tokenizer_pads_with_a_reserved_token() -> None:
    """Llama 3's own has no padding token and no `<|finetune_right_pad_id|>`."""
    tokenizer = build_tokenizer(["a"], 300)
    older = tokenizer.backend_tokenizer.to_str().replace("<|finetune_right_pad_id|>", "<|reserved_special_token_9|>")
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    llama3 = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(older),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=STOCK["llama3"],
    )
    assert Renderer(llama3).tokenizer.pad_token == "<|reserved_special_token_0|>"


def test_a_stock_template_with_another_system_text_has_a_twin_too(renderer: Renderer) -> None:
    changed = STOCK["llama3_1"].replace("Cutting Knowledge Date: December 2023", "Knowledge: until 2025")
    twin = with_template(renderer, changed)
    theirs = renderer.tokenizer.apply_chat_template([USER, ANSWER], chat_template=changed, return_dict=False)
    assert twin.conversation([USER, ANSWER]).ids == theirs


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            STOCK["llama3_1"].replace("message['content'] | trim", "message['content']"),
            "is none of the stock Llama 3 ones",
        ),
        (
            STOCK["llama3_1"].replace("assistant<|end_header_id|>\\n\\n' -}}", "model<|end_header_id|>\\n\\n' -}}"),
            "has a marked twin that writes another text",
        ),
        ((FOLDER / "qwen3.jinja").read_text(encoding="utf-8"), "is none of the stock Llama 3 ones"),
    ],
)
def test_a_template_without_proven_twin_is_refused(renderer: Renderer, template: str, sentence: str) -> None:
    with pytest.raises(UserError, match="has no generation markers to say what is trained, and ") as error:
        with_template(renderer, template)
    assert sentence in str(error.value) and "name a template" in str(error.value)


@pytest.mark.parametrize(
    ("name", "messages", "tools", "sentence"),
    [
        ("llama3", [USER, ANSWER], [TOOL], "has no tools; name another template"),
        ("llama3", [USER, CALL], [], "has no tool_calls"),
        ("llama3", [USER, {"role": "tool", "content": "x"}, ANSWER], [], "has no tool"),
        ("llama3_2", [USER, ANSWER], [{"type": "brave_search"}], "has no builtin_tools"),
        ("llama3_1", [USER, {**CALL, "content": "Look."}], [TOOL], "cannot say a call of f with text beside it"),
        (
            "llama3_1",
            [USER, message_with(*[CALL["tool_calls"][0]["function"]] * 2)],
            [TOOL],
            "single tool-calls at once",
        ),
    ],
)
def test_what_a_stock_template_would_drop_or_refuse_is_refused(
    twins: dict[str, Renderer], name: str, messages: Any, tools: Any, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        twins[name].conversation(messages, tools)
    assert sentence in str(error.value)


def test_any_template_with_markers_works() -> None:
    """Qwen's, on a tokenizer with its control tokens."""
    tokenizer = build_tokenizer(["<|im_start|>user\nWhat is it?<|im_end|>\n"] * 9, 320)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.chat_template = (FOLDER / "qwen2_5_training.jinja").read_text(encoding="utf-8")
    renderer = Renderer(tokenizer)
    assert renderer.dialect is None
    assert renderer.tokenizer.convert_ids_to_tokens([renderer.eot_id]) == ["<|im_end|>"]
    messages = [{**USER, "content": "<|im_end|>"}, ANSWER, USER, CALL]
    ours = renderer.conversation(messages, [TOOL], train="all")
    theirs = tokenizer.apply_chat_template([{**USER, "content": "x"}, *messages[1:]], tools=[TOOL], return_dict=True)
    trained = [token for token, mask in zip(ours.ids, ours.mask, strict=True) if mask]
    # The line break after the header belongs to the prompt, though this template's markers have it in the answer.
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    assert tokenizer.decode(trained) == f"Yo<|im_end|>\n{call}<|im_end|>\n"
    assert ours.ids[: len(renderer.prompt(messages[:3], [TOOL]))] == renderer.prompt(messages[:3], [TOOL])
    assert renderer.tokenizer.decode(ours.ids).replace("user\n<|im_end|>", "user\nx") == tokenizer.decode(
        theirs["input_ids"]
    )
    assert ours.ids.count(renderer.eot_id) == theirs["input_ids"].count(renderer.eot_id)


def test_llama_3_3_says_what_llama_3_1_says(twins: dict[str, Renderer], renderer: Renderer) -> None:
    """The published template of Llama-3.3-70B-Instruct is that of 3.1 to the byte, so 3.1's twin is its twin; copies
    with Windows line ends go round too."""
    assert hashlib.sha256(STOCK["llama3_1"].encode()).hexdigest() == LLAMA33_SHA256
    windows = with_template(renderer, STOCK["llama3_1"].replace("\n", "\r\n"))
    for messages, tools in (([USER, ANSWER], []), ([USER, CALL, {"role": "tool", "content": "x"}, ANSWER], [TOOL])):
        assert windows.conversation(messages, tools) == twins["llama3_1"].conversation(messages, tools)
