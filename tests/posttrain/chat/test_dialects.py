"""The dialects of our template: `hf` is the stock text, `posttrain` says more, `meta` is what Meta documents."""

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.chat import BUILTIN_TOOLS, TEMPLATES, Dialect, Renderer, build_tokenizer
from posttrain.chat.dialects import DATE, dialect_of, pin
from posttrain.errors import UserError

from .cases import builtin_calls, calls, conversations, hostile_text, message_with, plain_text, says, tool_lists

TRL = find_spec("trl")
STOCK = Path(str(TRL and TRL.origin)).parent / "chat_templates" / "llama3_1.jinja"
BUILTIN = [{"type": name} for name in BUILTIN_TOOLS]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
USER = {"role": "user", "content": "Hi"}
SEARCH = message_with({"name": "brave_search", "arguments": {"query": "rain"}})
CODE = message_with({"name": "code_interpreter", "arguments": {"code": 'print("a")'}})
HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"


@pytest.fixture(scope="session")
def renderers(renderer: Renderer) -> dict[Dialect, Renderer]:
    def of(template: str) -> Renderer:
        tokenizer = copy.deepcopy(renderer.tokenizer)
        tokenizer.chat_template = template
        return Renderer(tokenizer)

    return {"posttrain": renderer, "hf": of(TEMPLATES["llama-3.1-hf"]), "meta": of(TEMPLATES["llama-3.1-meta"])}


@settings(max_examples=80, deadline=None)
@given(
    messages=conversations(plain_text, most_calls=1, names=st.from_regex(r"[a-z_.]{1,9}", fullmatch=True)),
    tools=tool_lists(plain_text),
    options=st.fixed_dictionaries(
        {},
        optional={
            "tools_in_user_message": st.booleans(),
            "date_string": st.just("1 Jan 2025"),
            "add_generation_prompt": st.booleans(),
            "builtin_tools": st.just(["brave_search", "code_interpreter"]),
        },
    ),
)
@pytest.mark.parametrize("dialect", ["hf", "posttrain"])
def test_text_equals_the_stock_template(
    renderers: dict[Dialect, Renderer], dialect: Dialect, messages: Any, tools: Any, options: Any
) -> None:
    """`posttrain` says all this as `hf` does: it differs only where `hf` refuses, and in code for the interpreter."""

    def text(**template: Any) -> Any:
        return renderers[dialect].tokenizer.apply_chat_template(
            messages, tools=tools or None, tokenize=False, **options, **template
        )

    assert text() == text(chat_template=STOCK.read_text(encoding="utf-8"))


def test_every_dialect_is_known_by_its_template() -> None:
    assert {name: dialect_of(text) for name, text in TEMPLATES.items()} == {
        "llama-3.1": "posttrain",
        "llama-3.1-hf": "hf",
        "llama-3.1-meta": "meta",
    }


def written(renderer: Renderer, messages: list[Any], tools: list[Any]) -> str:
    return str(renderer.tokenizer.decode(renderer.conversation(messages, tools).ids))


@pytest.mark.parametrize("dialect", ["posttrain", "hf", "meta"])
def test_a_builtin_call_goes_on_after_the_tool_and_an_answer_ends_the_turn(
    renderers: dict[Dialect, Renderer], dialect: Dialect
) -> None:
    renderer = renderers[dialect]
    messages = [USER, SEARCH, {"role": "ipython", "content": "wet"}, {"role": "assistant", "content": "Rain."}]
    text = written(renderer, messages, BUILTIN)
    result = "wet" if dialect == "meta" else '"wet"'
    assert text.endswith(
        f'{HEADER}<|python_tag|>brave_search.call(query="rain")<|eom_id|>'
        f"<|start_header_id|>ipython<|end_header_id|>\n\n{result}<|eot_id|>{HEADER}Rain.<|eot_id|>"
    )
    control = renderer.tokenizer.convert_tokens_to_ids(["<|python_tag|>", "<|eom_id|>"])
    ids = renderer.conversation(messages, BUILTIN, train="all").ids
    assert [ids.count(token) for token in control] == [1, 1]
    blank = "\n" if dialect == "meta" else "\n\n"
    assert text.split("<|eot_id|>")[0].endswith(
        f"Environment: ipython\nTools: brave_search, wolfram_alpha{blank}Cutting Knowledge Date: December 2023\n"
        f"Today Date: {DATE}\n\n"
    )


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [("posttrain", 'print("a")'), ("meta", 'print("a")'), ("hf", 'code_interpreter.call(code="print("a")")')],
)
def test_code_follows_the_python_tag(renderers: dict[Dialect, Renderer], dialect: Dialect, answer: str) -> None:
    text = written(renderers[dialect], [USER, CODE], [{"type": "code_interpreter"}])
    assert text.endswith(f"{HEADER}<|python_tag|>{answer}<|eom_id|>")
    assert text.count("Environment: ipython\n") == 1


def test_parallel_and_nested_calls_and_text_beside_them(renderer: Renderer) -> None:
    inner = {"name": "g", "parameters": {"y": [1]}}
    called = [{"name": "f", "arguments": {"x": inner}}, {"name": "h", "arguments": {}}]
    lists = (
        '[{"name": "f", "parameters": {"x": {"name": "g", "parameters": {"y": [1]}}}}, {"name": "h", "parameters": {}}]'
    )
    for content, before in (("", ""), (" Both: ", "Both:<|python_tag|>")):
        assert written(renderer, [USER, message_with(*called, content=content)], [TOOL]).endswith(
            f"{HEADER}{before}{lists}<|eot_id|>"
        )


def test_meta_writes_what_its_documentation_shows(renderers: dict[Dialect, Renderer]) -> None:
    """llama.com's pages on Llama 3.1: tools without the interpreter need no environment line and end the turn."""
    call = message_with({"name": "f", "arguments": {"x": 1}})
    alone = written(renderers["meta"], [USER, call], [TOOL])
    assert "Environment" not in alone
    assert 'and its value}. Do not use variables.\n\n{\n    "type": "function"' in alone
    assert alone.endswith(f'{HEADER}{{"name": "f", "parameters": {{"x": 1}}}}<|eot_id|>')
    beside = written(renderers["meta"], [USER, call], [TOOL, {"type": "code_interpreter"}])
    assert beside.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n\nCutting Knowledge Date"
    )
    assert beside.endswith(f'{HEADER}<|python_tag|>{{"name": "f", "parameters": {{"x": 1}}}}<|eom_id|>')


def test_tools_stand_in_the_system_turn_when_asked(renderer: Renderer) -> None:
    text = written(Renderer(copy.deepcopy(renderer.tokenizer), tools_in="system"), [USER, SEARCH], [TOOL])
    system, user = text.split("<|eot_id|>")[:2]
    assert '"name": "f"' in system and user.endswith("user<|end_header_id|>\n\nHi")


@pytest.mark.parametrize("dialect", ["posttrain", "hf", "meta"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_the_model_is_to_write_reads_back_as_the_message(
    renderers: dict[Dialect, Renderer], dialect: Dialect, data: st.DataObject
) -> None:
    most = 3 if dialect == "posttrain" else 1
    text = data.draw(st.sampled_from([plain_text, hostile_text]))
    message = data.draw(calls(text, most) | builtin_calls(text) | says("assistant", text))
    tools = data.draw(st.sampled_from([[], BUILTIN]))
    renderer = renderers[dialect]
    said = renderer.text(message, tools)
    trimmed = (
        message
        if dialect == "meta" and "tool_calls" not in message
        else {**message, "content": message["content"].strip()}
    )
    assert renderer.message(said) == trimmed
    assert renderer.parse(said).error is None or "tool_calls" not in message
    if not message["content"][:1].isspace():
        answer = renderer.conversation([USER, message], tools).ids[len(renderer.prompt([USER], tools)) :]
        end = "<|eom_id|>" if tools and "tool_calls" in message else "<|eot_id|>"
        assert renderer.tokenizer.decode(answer) == said + end


@pytest.mark.parametrize(
    ("dialect", "message", "sentence"),
    [
        ("hf", message_with({"name": "f", "arguments": {}}, content="Look."), "no text beside it"),
        ("meta", message_with({"name": "f", "arguments": {}}, content="Look."), "no text beside it"),
        ("hf", message_with(*[{"name": "f", "arguments": {}}] * 2), "has one call in a message"),
        ("meta", message_with(*[{"name": "f", "arguments": {}}] * 2), "has one call in a message"),
        ("hf", message_with({"name": 'a"b', "arguments": {}}), 'cannot say a call of a"b'),
        ("posttrain", message_with({"name": "brave_search", "arguments": {"query": 1}}), "cannot render"),
        (
            "posttrain",
            message_with({"name": "brave_search", "arguments": {"query": "a", "n": "b"}}),
            "cannot say a call of brave_search",
        ),
        ("meta", message_with({"name": "code_interpreter", "arguments": {"text": "a"}}), "has one argument, code"),
        (
            "posttrain",
            message_with({"name": "code_interpreter", "arguments": {"code": 'brave_search.call(query="a")'}}),
            "cannot say a call of code_interpreter",
        ),
        ("posttrain", {"role": "assistant", "content": '{"name": "f", "parameters": {}}'}, "reads as a call of f"),
        ("hf", {"role": "assistant", "content": "<|python_tag|>1"}, "reads as a call of code_interpreter"),
    ],
)
def test_what_a_dialect_cannot_say_is_refused(
    renderers: dict[Dialect, Renderer], dialect: Dialect, message: Any, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        renderers[dialect].conversation([USER, message], BUILTIN)
    assert sentence in str(error.value)


def test_an_answer_whose_first_blanks_join_its_header_is_refused() -> None:
    """A tokenizer with a token for three line breaks: served text would begin with it, generated text never does."""
    tokenizer = build_tokenizer(["a\n\n\nb\n\nc"] * 9, vocab_size=300)
    tokenizer.chat_template = TEMPLATES["llama-3.1-meta"]
    renderer = Renderer(tokenizer)
    broken = {"role": "assistant", "content": "\nHi"}
    assert written(renderer, [USER, broken], []).endswith("\n\n\nHi<|eot_id|>")
    with pytest.raises(UserError, match="an answer before the last begins with a line break"):
        renderer.conversation([USER, broken, USER, broken])
    spaced = {"role": "assistant", "content": " Hi\n"}
    assert written(renderer, [USER, spaced, USER, spaced], []).endswith("\n\n Hi\n<|eot_id|>")


@pytest.mark.parametrize("dialect", ["posttrain", "hf", "meta"])
@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(
        st.sampled_from(
            ["<|python_tag|>", '{"name": "f", "parameters": {"a": 1}}', "[", ", ", "]", '{"name": "f"', "}", "Look.",
             "\n", 'brave_search.call(query="', '")', "print(1)", '"', ' code_interpreter.call(code="', "<|eot_id|>"]
        ),
        max_size=6,
    ).map("".join),
    tools=st.sampled_from([[], BUILTIN]),
)  # fmt: skip
def test_whatever_a_model_writes_can_be_scored_and_trained(
    renderers: dict[Dialect, Renderer], dialect: Dialect, text: str, tools: Any
) -> None:
    renderer = renderers[dialect]
    message = renderer.message(text)
    assert renderer.message(renderer.text(message, tools)) == message
    assert renderer.conversation([USER, message], tools).mask[-1] == 2


def test_the_date_is_a_recipes_and_goes_with_the_tokenizer(renderer: Renderer, tmp_path: Path) -> None:
    dated = Renderer(copy.deepcopy(renderer.tokenizer), date="20 Nov 2026")
    text = written(dated, [USER, SEARCH], [])
    assert "Today Date: 20 Nov 2026\n" in text
    dated.tokenizer.save_pretrained(tmp_path)
    again = Renderer.from_pretrained(tmp_path)
    assert written(again, [USER, SEARCH], []) == text
    later = Renderer.from_pretrained(tmp_path, date="1 Jan 2027")
    assert written(later, [USER, SEARCH], []) == text.replace("20 Nov 2026", "1 Jan 2027")
    assert later.tokenizer.chat_template == pin(renderer.tokenizer.chat_template, date_string="1 Jan 2027")
    with pytest.raises(UserError, match="cannot stand in a chat template"):
        Renderer.from_pretrained(tmp_path, date="<|eot_id|>")


def test_a_base_tokenizer_gets_the_template_a_recipe_names(renderer: Renderer, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(renderer.tokenizer)
    tokenizer.chat_template, tokenizer.pad_token, tokenizer.eos_token = None, None, "<|end_of_text|>"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no chat template; name a template \(llama-3.1, llama-3.1-hf"):
        Renderer.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="template 'llama' is not known; use one of "):
        Renderer.from_pretrained(tmp_path, template="llama")
    named = Renderer.from_pretrained(tmp_path, template="llama-3.1")
    messages = [USER, {"role": "assistant", "content": "Yo"}]
    assert named.conversation(messages) == renderer.conversation(messages)
    assert (named.tokenizer.pad_token, named.tokenizer.eos_token) == ("<|finetune_right_pad_id|>", "<|eot_id|>")
    named.tokenizer.save_pretrained(tmp_path)
    assert Renderer.from_pretrained(tmp_path).conversation(messages) == renderer.conversation(messages)
