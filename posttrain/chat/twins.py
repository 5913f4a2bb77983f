"""The marked twin of a stock Llama 3, 3.1, 3.2 or 3.3 template: the same text, with assistant turns between markers.

The twin is the checkpoint's own template with a few edits, which must fit it exactly; then conversations of all shapes
are rendered through both and compared as text. So a template that differs from the stock one elsewhere, in its system
prompt for instance, has a twin too, and one that cannot be proven equal has none.
"""

import random
from functools import lru_cache
from typing import Any, Literal

from jinja2 import Template, TemplateError

from posttrain.chat.dialects import DATE, TEMPLATES, dated, is_dated, pin
from posttrain.chat.template import CLOSE, OPEN, compile_template, is_marked
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

PROBES = 60
"""Generated conversations that are compared, each with and without a generation prompt."""

_HEADER = r"'<|start_header_id|>assistant<|end_header_id|>\n\n'"

# Llama 3 writes every message with one statement, which holds the BOS too for the first.
_LLAMA3 = "{{ content }}"
_LLAMA3_MARKED = (
    f"{{% if message['role'] == 'assistant' %}}{{{{ (bos_token if loop.first else '') + {_HEADER} }}}}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ content }}{% endif %}"
)

# Llama 3.1 to 3.3 write text turns with one statement and calls with a block that begins and ends as follows.
_TEXT = (
    r"{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    r"+ message['content'] | trim + '<|eot_id|>' }}"
)
_TEXT_MARKED = (
    f"{{%- if message['role'] == 'assistant' %}}{{{{- {_HEADER} }}}}{{%- generation %}}"
    "{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}"
    f"{{%- else %}}{_TEXT}{{%- endif %}}"
)
_CALL_HEADER = f"{{{{- {_HEADER} -}}}}"
_CALL_BEGINS = "{%- set tool_call = message.tool_calls[0].function %}"
_CALL_ENDS = '{%- elif message.role == "tool" or message.role == "ipython" %}'


class NotProven(Exception):
    """Why a template has no twin, as the end of a sentence."""


@lru_cache(maxsize=16)
def marked_twin(source: str) -> str:
    """The twin of a stock template, with a fixed date. Raises NotProven."""
    twin = _edited(source.replace("\r\n", "\n"))
    _prove(source, twin)
    return pin(twin, dialect="hf", **({"date_string": DATE} if "date_string" in source else {}))


def _edited(source: str) -> str:
    if source.count(_LLAMA3) == 1 and "loop_messages" in source:
        return source.replace(_LLAMA3, _LLAMA3_MARKED)
    if [source.count(part) for part in (_TEXT, _CALL_BEGINS, _CALL_ENDS)] != [1, 1, 1]:
        raise NotProven("is none of the stock Llama 3 ones, which could be given markers")
    before, _, rest = source.replace(_TEXT, _TEXT_MARKED).partition(_CALL_BEGINS)
    call, _, after = rest.partition(_CALL_ENDS)
    call = call.replace(_CALL_HEADER, "")
    return (
        f"{before}{_CALL_BEGINS}{{{{- {_HEADER} }}}}{{%- generation %}}{call}{{%- endgeneration %}}{_CALL_ENDS}{after}"
    )


def _prove(source: str, twin: str) -> None:
    """Raise NotProven when a conversation reads otherwise in the twin, or the markers are not those of its turns."""
    stock, marked = compile_template(source), compile_template(twin)
    for number in range(PROBES):
        messages, variables = _probe(random.Random(number))
        for ask in (False, True):
            text, twins = _rendered(stock, messages, variables, ask), _rendered(marked, messages, variables, ask)
            bare = twins and twins.replace(OPEN, "").replace(CLOSE, "")
            if text != bare:
                raise NotProven(f"has a marked twin that writes another text ({bare!r:.60} for {text!r:.60})")
            turns = sum(message["role"] == "assistant" for message in messages)
            if twins is not None and not twins.count(OPEN) == twins.count(CLOSE) == turns:
                raise NotProven(f"has a marked twin that marks {twins.count(OPEN)} of {turns} assistant turns")


@lru_cache(maxsize=16)
def keeps_prefix(source: str) -> bool:
    """Whether the prompt of every turn of the generated conversations is a prefix of the whole conversation."""
    template = compile_template(source)
    for number in range(PROBES):
        messages, variables = _probe(random.Random(number))
        text = _rendered(template, messages, variables, ask=False)
        before = [] if text is None else text.split(OPEN)[:-1]
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if len(before) not in (0, len(turns)):
            return False
        for span in range(len(before)):
            if OPEN.join(before[: span + 1]) != _rendered(template, messages[: turns[span]], variables, ask=True):
                return False
    return True


def _rendered(template: Template, messages: list[Message], variables: dict[str, Any], ask: bool) -> str | None:
    """The text, or None where the template refuses."""
    try:
        return template.render(messages=messages, add_generation_prompt=ask, bos_token="<|begin_of_text|>", **variables)
    except (TemplateError, TypeError):
        return None


def _probe(rng: random.Random) -> tuple[list[Message], dict[str, Any]]:
    """A conversation of one to three exchanges, with blanks, calls and results of all kinds, and variables for it."""
    words = ["Hi", "  two  words\n", "", '{"a": "b"}', "\n\nกา <|eot_id|>", 'a "quote"', "[1, 2]", "\t", "a\n\n b"]

    def say(role: str) -> Message:
        return {"role": role, "content": rng.choice(words)}

    def call() -> Message:
        arguments = {rng.choice(["q", "n"]): rng.choice(["rain", 3, None, {"b": [1, 2.5, "é"]}]) for _ in range(2)}
        function = {"name": rng.choice(["f", "brave_search"]), "arguments": arguments}
        many = rng.choice([1, 1, 1, 2])
        message = say("assistant") if rng.random() < 0.3 else {"role": "assistant"}
        return {**message, "tool_calls": [{"type": "function", "function": function}] * many}

    messages = [say("system")] if rng.random() < 0.5 else []
    for _ in range(rng.randint(1, 3)):
        messages.append(say("user"))
        if rng.random() < 0.5:
            result = rng.choice(["words", {"t": 3}, [1], 7, True])
            messages += [call(), {"role": rng.choice(["tool", "ipython"]), "content": result}]
        messages.append(say("assistant") if rng.random() < 0.8 else call())
    tool: Tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "é": [1]}}}
    optional = {
        "tools": [tool] * rng.randint(1, 2), "custom_tools": [tool], "tools_in_user_message": rng.random() < 0.5,
        "builtin_tools": ["brave_search", "code_interpreter"], "date_string": "1 Jan 2025",
    }  # fmt: skip
    chosen = {name: value for name, value in optional.items() if rng.random() < 0.4}
    return messages, {"strftime_now": lambda pattern: "02 Feb 2025", **chosen}


def usable_template(
    source: Any, where: str, date: str | None = None, tools_in: Literal["user", "system"] = "user"
) -> str:
    """The template to render with, made from a tokenizer's own: marked, and with a fixed date.

    `where` names the tokenizer. Raises UserError for a template that is missing, does not parse, or has neither markers
    nor a marked twin.
    """
    advice = f"name a template ({', '.join(TEMPLATES)}), or set tokenizer.chat_template and save the tokenizer"
    if not isinstance(source, str):
        raise UserError(f"{where} has {'several chat templates' if source else 'no chat template'}; {advice}")
    try:
        compile_template(source)
        used = source if is_marked(source) else marked_twin(source)
    except TemplateError as error:
        raise UserError(f"the chat template of {where} does not parse ({error}); {advice}") from error
    except NotProven as why:
        lack = f"the chat template of {where} has no generation markers to say what is trained"
        raise UserError(f"{lack}, and {why}; {advice}") from why
    if date is not None or ("strftime_now" in used and "date_string" in used and not is_dated(used)):
        used = dated(used, date or DATE, where)
    if tools_in == "system":
        if "tools_in_user_message" not in used:
            raise UserError(f"the chat template of {where} has one place for tools; leave tools_in out")
        used = pin(used, tools_in_user_message=False)
    return used
