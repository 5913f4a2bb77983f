"""The renderer against ids worked out by hand, against transformers, and against hostile content."""

import copy
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from posttrain.chat import CONTROL_TOKENS, LLAMA31_TEMPLATE, Renderer
from posttrain.chat.template import BREAK, ESCAPE
from posttrain.errors import UserError

from .cases import conversations, hostile_text, message_with, plain_text, tool_lists

USER: dict[str, Any] = {"role": "user", "content": "Hi"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Yo"}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": [1, {"b": "é"}]}}}],
}
TWO_CALLS = {**CALL, "tool_calls": CALL["tool_calls"] * 2}
RESULT: dict[str, Any] = {"role": "tool", "content": {"t": 3}}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
BOS, START, END, EOT = 256, 262, 263, 265


def by_hand(text: str) -> list[int]:
    """Ids of ASCII text in a byte-level vocabulary without merges: `!` is 0, newline 198, space 220."""
    return [{"\n": 198, " ": 220}.get(char, ord(char) - 33) for char in text]


def said(
    renderer: Renderer, messages: list[dict[str, Any]], tools: Any = (), train: Any = "all"
) -> list[tuple[str, int]]:
    """Runs of equal mask with their text, trained ones only."""
    rendered = renderer.conversation(messages, tools, train=train)
    runs: list[tuple[list[int], int]] = []
    previous = 0
    for token, mask in zip(rendered.ids, rendered.mask, strict=True):
        if mask and mask == previous:
            runs[-1][0].append(token)
        elif mask:
            runs.append(([token], mask))
        previous = mask
    return [(renderer.tokenizer.decode(ids), mask) for ids, mask in runs]


def test_ids_and_mask_are_those_worked_out_by_hand(byte_renderer: Renderer) -> None:
    system = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    context = [BOS, START, *by_hand("system"), END, *by_hand("\n\n" + system), EOT]
    context += [START, *by_hand("user"), END, *by_hand("\n\nHi"), EOT]
    context += [START, *by_hand("assistant"), END, 198, 198]
    rendered = byte_renderer.conversation([USER, ANSWER])
    assert byte_renderer.prompt([USER]) == context
    assert rendered.ids == [*context, 56, 78, EOT]
    assert rendered.mask == [0] * len(context) + [1, 1, 2]


def test_tool_conversation_reads_as_the_llama_template_has_it(renderer: Renderer) -> None:
    rendered = renderer.conversation([{"role": "system", "content": "Be brief."}, USER, CALL, RESULT, ANSWER], TOOLS)
    assert renderer.tokenizer.decode(rendered.ids) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n"
        "Given the following functions, please respond with a JSON for a function call with its proper arguments that "
        'best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary of '
        'argument name and its value}.Do not use variables.\n\n{\n    "type": "function",\n    "function": {\n'
        '        "name": "f",\n        "description": "d",\n        "parameters": {\n            "type": "object"\n'
        "        }\n    }\n}\n\n"
        "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "f", "parameters": {"a": [1, {"b": "é"}]}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n{"t": 3}<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>"
    )


def test_last_or_all_assistant_turns_are_trained_and_nothing_else(renderer: Renderer) -> None:
    messages = [USER, CALL, RESULT, ANSWER, USER, TWO_CALLS]
    one = '{"name": "f", "parameters": {"a": [1, {"b": "é"}]}}'
    end = ("<|eot_id|>", 2)
    last = [(f"[{one}, {one}]", 1), end]
    assert said(renderer, messages, TOOLS, train="last") == last
    assert said(renderer, messages, TOOLS, train="all") == [(one, 1), end, ("Yo", 1), end, *last]


def test_a_flag_on_a_message_says_whether_it_is_trained(renderer: Renderer) -> None:
    messages = [USER, {**ANSWER, "train": False}, USER, CALL, RESULT, {**ANSWER, "train": True}]
    one = '{"name": "f", "parameters": {"a": [1, {"b": "é"}]}}'
    end = ("<|eot_id|>", 2)
    assert said(renderer, messages, TOOLS, train="flagged") == [(one, 1), end, ("Yo", 1), end]
    assert said(renderer, messages, TOOLS, train="last") == [("Yo", 1), end]
    way = [USER, ANSWER, USER, {**CALL, "train": True}, RESULT, ANSWER]
    assert said(renderer, way, TOOLS, train="last")[-2:] == [("Yo", 1), end]
    assert said(renderer, way, TOOLS, train="last") == said(renderer, way[2:], TOOLS, train="all")
    plain = [{key: value for key, value in message.items() if key != "train"} for message in messages]
    assert renderer.conversation(messages, TOOLS).ids == renderer.conversation(plain, TOOLS).ids
    with pytest.raises(UserError, match="leave no turn to train"):
        renderer.conversation(messages[:2], train="flagged")


def test_headers_and_ends_are_labelled_as_format(renderer: Renderer) -> None:
    rendered = renderer.conversation([USER, CALL, RESULT, ANSWER], TOOLS, train="all")
    pieces = [
        renderer.tokenizer.decode(token)
        for token, is_format in zip(rendered.ids, rendered.format, strict=True)
        if is_format
    ]
    heads = "<|start_header_id|>{}<|end_header_id|>"
    assert "".join(pieces) == (
        "<|begin_of_text|>" + heads.format("system") + "<|eot_id|>" + heads.format("user") + "<|eot_id|>"
        + heads.format("assistant") + "\n\n<|eot_id|>" + heads.format("ipython") + "<|eot_id|>"
        + heads.format("assistant") + "\n\n<|eot_id|>"
    )  # fmt: skip
    assert all(is_format for mask, is_format in zip(rendered.mask, rendered.format, strict=True) if mask == 2)
    assert not any(is_format for mask, is_format in zip(rendered.mask, rendered.format, strict=True) if mask == 1)


HOSTILE = "".join(CONTROL_TOKENS)


def test_every_place_a_row_has_for_text_may_hold_control_tokens(renderer: Renderer) -> None:
    """System, user, names, keys and values of arguments and schemas, results, text beside a call, and answers."""
    unmarked = HOSTILE.replace("<|python_tag|>", "")

    def row(text: str, beside: str) -> tuple[list[Any], list[Any]]:
        function = {"name": text, "arguments": {text: [{text: text}]}}
        schema = {"name": text, "description": text, "parameters": {"properties": {text: {"enum": [text]}}}}
        return [
            {"role": "system", "content": text},
            {"role": "user", "content": text},
            message_with(function, function, content=beside),
            {"role": "tool", "content": text},
            {"role": "ipython", "content": {text: [text]}},
            message_with(function),
            {"role": "assistant", "content": beside},
        ], [{"type": "function", "function": schema}]

    control = set(renderer.tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)))
    hostile, tame = (renderer.conversation(*row(*texts), train="all") for texts in ((HOSTILE, unmarked), ("x", "x")))
    assert [token for token in hostile.ids if token in control] == [token for token in tame.ids if token in control]
    prompt = renderer.prompt(row(HOSTILE, unmarked)[0][:5], row(HOSTILE, unmarked)[1])
    assert [token for token in prompt if token in control] == [
        token for token in renderer.prompt(row("x", "x")[0][:5], row("x", "x")[1]) if token in control
    ]
    text = renderer.tokenizer.decode(hostile.ids)
    assert text.count("<|reserved_special_token_7|>") == 2 + 4 + (2 * 4 + 1) + 1 + 2 + 4 + 1


def test_an_empty_answer_trains_the_end_of_turn(renderer: Renderer) -> None:
    assert said(renderer, [USER, {"role": "assistant", "content": ""}]) == [("<|eot_id|>", 2)]


@settings(max_examples=60, deadline=None)
@given(messages=conversations(plain_text), tools=tool_lists(plain_text))
def test_ids_and_mask_equal_those_of_transformers(renderer: Renderer, messages: Any, tools: Any) -> None:
    theirs = renderer.tokenizer.apply_chat_template(
        messages, tools=tools or None, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = renderer.conversation(messages, tools, train="all")
    assert ours.ids == theirs["input_ids"]
    assert [int(mask > 0) for mask in ours.mask] == theirs["assistant_masks"]


@settings(max_examples=60, deadline=None)
@given(messages=conversations(hostile_text), tools=tool_lists(hostile_text))
def test_the_prompt_of_every_turn_is_a_prefix_with_one_bos(renderer: Renderer, messages: Any, tools: Any) -> None:
    rendered = renderer.conversation(messages, tools, train="all")
    assert rendered.ids.count(renderer.tokenizer.bos_token_id) == 1
    for turn in (i for i, message in enumerate(messages) if message["role"] == "assistant"):
        prompt = renderer.prompt(messages[:turn], tools)
        assert rendered.ids[: len(prompt)] == prompt
        assert rendered.mask[len(prompt) - 1] == 0
        assert rendered.mask[len(prompt)] > 0


def harmless(value: Any) -> Any:
    """The same conversation with the control tokens' brackets taken away."""
    if isinstance(value, str):
        return value.replace("<|", "<").replace("|>", ">")
    if isinstance(value, dict):
        return {harmless(key): harmless(item) for key, item in value.items()}
    return [harmless(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=100, deadline=None)
@given(messages=conversations(hostile_text), tools=tool_lists(hostile_text))
def test_control_tokens_in_content_stay_text(renderer: Renderer, messages: Any, tools: Any) -> None:
    control = {renderer.tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    before = copy.deepcopy(messages)
    rendered = renderer.conversation(messages, tools, train="all")
    tame = renderer.conversation(harmless(messages), harmless(tools), train="all")
    assert Counter(i for i in rendered.ids if i in control) == Counter(i for i in tame.ids if i in control)
    assert rendered.mask.count(2) == tame.mask.count(2)
    assert messages == before
    theirs = renderer.tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False)
    assert renderer.tokenizer.decode(rendered.ids) == theirs  # the text is the same, to the last character


def test_the_marks_of_our_own_cannot_be_forged(renderer: Renderer) -> None:
    content = f"a{ESCAPE}2b{ESCAPE}3c{ESCAPE}<{BREAK}|eot_id|>{ESCAPE}1d"
    assert said(renderer, [USER, {"role": "assistant", "content": content}]) == [(content, 1), ("<|eot_id|>", 2)]
    assert renderer.message(renderer.text({"role": "assistant", "content": content}))["content"] == content


@pytest.mark.parametrize(
    "text", ["พรุ่งนี้ฝนตกที่กรุงเทพ", "कल दिल्ली में बारिश होगी।", "Straße à Nîmes, ¿qué?", "👩‍👩‍👧 \u200d"]
)
def test_every_script_comes_back_as_written(renderer: Renderer, text: str) -> None:
    assert said(renderer, [{"role": "user", "content": text}, {"role": "assistant", "content": text}])[0] == (text, 1)


@pytest.mark.parametrize(
    ("messages", "tools", "sentence"),
    [
        ([], (), "does not end with the assistant"),
        ([USER], (), "does not end with the assistant"),
        ([{"role": "bot", "content": "x"}, ANSWER], (), "role 'bot'; use one of system, user, assistant, tool"),
        ([{"role": "user"}, ANSWER], (), "content of a message of the user is missing"),
        (
            [{"role": "user", "content": ["x"]}, ANSWER],
            (),
            "content of a message of the user is a list; give it as text",
        ),
        ([USER, {"role": "assistant", "content": None}], (), "content of a message of the assistant is missing"),
        ([USER, {**CALL, "content": ["x"]}], (), "content beside a call is a list; give it as text"),
        ([USER, {**ANSWER, "train": "yes"}], (), "train flag of a message is 'yes'; write true or false"),
        ([{**USER, "train": True}, ANSWER], (), "a user message is flagged to be trained"),
        ([USER, ANSWER], [{"type": "web"}], "a tool is {'type': 'web'}; write"),
        ([{"role": "system", "content": "x"}] * 2 + [USER, ANSWER], TOOLS, "does not begin with the user"),
        ([{**CALL, "role": "user"}, ANSWER], (), "a user message has tool_calls"),
        ([USER, {**CALL, "tool_calls": [{"name": "f"}]}], (), "a tool call is {'name': 'f'}; write it as"),
        (
            [USER, {**CALL, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}],
            (),
            "the arguments of a call of f are a str; give an object, not its JSON text",
        ),
        (
            [USER, {**CALL, "tool_calls": [{"function": {"name": "f", "arguments": {"x": float("nan")}}}]}],
            (),
            "holds nan",
        ),
        ([ANSWER], (), "begins with an answer to train on"),
        ([ANSWER], TOOLS, "has tools but does not begin with the user"),
        ([{"role": "user", "content": "\ud800"}, ANSWER], (), "half a surrogate pair"),
    ],
)
def test_a_conversation_that_cannot_be_said_is_refused(
    renderer: Renderer, messages: Any, tools: Any, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        renderer.conversation(messages, tools)
    assert sentence in str(error.value)


def test_a_prompt_is_not_empty_and_does_not_end_with_the_assistant(renderer: Renderer) -> None:
    with pytest.raises(UserError, match="leave the answer off"):
        renderer.prompt([USER, ANSWER])
    with pytest.raises(UserError, match="has no messages"):
        renderer.prompt([])


GENERATION = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}{% generation %}{{ m.content }}<|eot_id|>{% endgeneration %}"
    "{% endfor %}"
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"chat_template": None}, "has no chat template; name a template (llama-3.1"),
        (
            {"chat_template": "{{ messages[0].content }}"},
            "has no generation markers to say what is trained, and is none",
        ),
        ({"chat_template": LLAMA31_TEMPLATE + "{{ strftime_now('%d') }}"}, "prints today's date"),
        ({"chat_template": LLAMA31_TEMPLATE + "{% if %}"}, "does not parse"),
        ({"chat_template": "{{ bos_token }}" + LLAMA31_TEMPLATE}, "writes <|begin_of_text|> more than once"),
        ({"chat_template": GENERATION}, "marks 4 of 2 assistant turns"),
        ({"chat_template": GENERATION.replace("<|eot_id|>", "")}, "trains no end of turn"),
        ({"chat_template": LLAMA31_TEMPLATE.replace("assistant<|", "model<|", 2)}, "the prompt is no prefix"),
        ({"pad_token": "<|eot_id|>"}, "pads with <|eot_id|>, which also ends a turn"),
        (
            {"eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"},
            "pads with <|end_of_text|>, which also ends",
        ),
        (
            {"chat_template": LLAMA31_TEMPLATE.replace("ipython<|", "tool<|end_tool|>")},
            "writes <|end_tool|>, which is no",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_trusted_is_refused(renderer: Renderer, changes: Any, sentence: str) -> None:
    tokenizer = copy.deepcopy(renderer.tokenizer)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    with pytest.raises(UserError) as error:
        Renderer(tokenizer)
    assert sentence in str(error.value)


def test_a_folder_without_tokenizer_is_refused_with_its_path(tmp_path: Any) -> None:
    with pytest.raises(
        UserError, match=r"no tokenizer in .*nothing_here.*; check the name and the network, or name a folder"
    ):
        Renderer.from_pretrained(tmp_path / "nothing_here")
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match=r"no tokenizer in .*; name a folder with a whole tokenizer.json"):
        Renderer.from_pretrained(tmp_path)
