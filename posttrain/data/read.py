"""Reading a person's JSONL file into prompts, rows or pairs; every bad line is named with its number and reason.

`messages`      {"messages": [..., assistant], "tools"?}                   → Row
`prompts`       {"messages": [...]} or {"prompt": text}, "tools"?, "check"? → Prompt
`heldout`       the same as prompts, to evaluate on, so each has a check
`preferences`   {"prompt" or "messages", "chosen", "rejected", "tools"?}    → Pair
Chosen and rejected are a text, a message, or a list of messages, which may repeat the prompt.
Each line may also carry `capability`, `language` and `source`; other keys are left out.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from posttrain.data.read_spec import KIND_OF, Format, ReadConfig
from posttrain.data.rows import Check, Message, Pair, Prompt, Row, Tool
from posttrain.data.tables import write_table
from posttrain.errors import UserError
from posttrain.stages import Job

ROLES = ("system", "user", "assistant", "tool", "ipython")
MOST_FAULTS_SHOWN = 10
Record = dict[str, Any]


def run(job: Job) -> None:
    config: ReadConfig = job.config
    rows = read_rows(Path(job.inputs["file"]), config.format, config.capability, config.language)
    kept = list({row.id: row for row in rows}.values())
    job.summary["drops"] = {"duplicate": len(rows) - len(kept)}
    if config.rows:
        job.summary["drops"]["over the limit"] = max(0, len(kept) - config.rows)
        kept = kept[: config.rows]
    table = TABLE_OF[config.format]
    job.rows[table] = write_table(job.folder, table, kept)


def read_rows(path: Path, form: Format, capability: str, language: str = "en") -> list[Any]:
    """All rows of a file in its order; `capability` and `language` hold where a line names none.

    Raises UserError for a file that cannot be read or holds no row, and one naming the first faulty lines.
    """
    rows, faults = [], []
    for number, line in _lines(path):
        try:
            record = json.loads(line)
            _require(isinstance(record, dict), f"is a {type(record).__name__}, not an object")
            rows.append(BUILDERS[form](record, _about(record, path, capability, language)))
        except RecursionError:
            faults.append(f"{path.name}:{number}: is nested too deeply")
        except ValueError as error:
            faults.append(f"{path.name}:{number}: {_reason(error)}")
    if faults:
        shown = "\n  ".join(faults[:MOST_FAULTS_SHOWN])
        lines = "line is" if len(faults) == 1 else "lines are"
        raise UserError(f"{path}: {len(faults)} {lines} not as format {form} needs\n  {shown}")
    if not rows:
        raise UserError(f"{path} holds no {form} rows")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8-sig") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8 JSONL") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def _reason(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON ({error.msg} at column {error.colno})"
    return "holds half a surrogate pair, which is no text" if isinstance(error, UnicodeEncodeError) else str(error)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _about(record: Record, path: Path, capability: str, language: str) -> dict[str, Any]:
    """The keys that every kind of row has."""
    about = {"capability": capability, "language": language, "source": path.name}
    for name in about:
        if record.get(name) is not None:
            about[name] = record[name]
            _require(isinstance(about[name], str) and bool(about[name]), f"{name} is {about[name]!r}, not a text")
    return {**about, "tools": _tools(record.get("tools") or [])}


def _row(record: Record, about: dict[str, Any]) -> Row:
    messages = _messages(record.get("messages"), "messages")
    _require(messages[-1]["role"] == "assistant", f"ends with a {messages[-1]['role']} message, not the assistant's")
    return Row(messages=messages, **about)


def _prompt(record: Record, about: dict[str, Any]) -> Prompt:
    return Prompt(messages=_prompt_messages(record), check=_check(record.get("check")), **about)


def _heldout(record: Record, about: dict[str, Any]) -> Prompt:
    prompt = _prompt(record, about)
    _require(prompt.check is not None, "has no check, and a checkpoint's answer to it could not be graded")
    return prompt


def _pair(record: Record, about: dict[str, Any]) -> Pair:
    if "prompt" in record or "messages" in record:
        prompt = _prompt_messages(record)
    else:
        prompt = _shared(record.get("chosen"), record.get("rejected"))
    chosen, rejected = (_answer(record.get(name), name, prompt) for name in ("chosen", "rejected"))
    _require(chosen != rejected, "chosen and rejected are the same")
    prompt_id = Prompt(prompt, about["capability"], tools=about["tools"]).id
    return Pair(prompt=prompt, chosen=chosen, rejected=rejected, prompt_id=prompt_id, **about)


Builder = Callable[[Record, dict[str, Any]], Any]
BUILDERS: dict[str, Builder] = {"messages": _row, "prompts": _prompt, "preferences": _pair, "heldout": _heldout}
TABLE_OF: dict[str, str] = {"messages": "rows", "prompts": "prompts", "preferences": "pairs", "heldout": "prompts"}
assert BUILDERS.keys() == TABLE_OF.keys() == KIND_OF.keys()


def _prompt_messages(record: Record) -> tuple[Message, ...]:
    given = record["prompt"] if "prompt" in record else record.get("messages")
    name = "prompt" if "prompt" in record else "messages"
    messages = _messages([{"role": "user", "content": given}] if isinstance(given, str) else given, name)
    _require(messages[-1]["role"] != "assistant", f"{name} ends with an assistant message; it must end before one")
    return messages


def _shared(chosen: Any, rejected: Any) -> tuple[Message, ...]:
    """The prompt of a pair without one: what both conversations begin with, up to their last messages."""
    first, second = _messages(chosen, "chosen"), _messages(rejected, "rejected")
    _require(len(first) > 1, "has neither prompt nor messages, and chosen is an answer alone")
    _require(first[:-1] == second[:-1], "chosen and rejected answer different conversations")
    return first[:-1]


def _answer(given: Any, name: str, prompt: tuple[Message, ...]) -> Message:
    if isinstance(given, str):
        given = {"role": "assistant", "content": given}
    messages = _messages([given] if isinstance(given, dict) else given, name)
    if messages[: len(prompt)] == prompt:
        messages = messages[len(prompt) :]
    _require(len(messages) == 1, f"{name} has {len(messages)} messages after the prompt; one answer is needed")
    _require(messages[0]["role"] == "assistant", f"{name} is a {messages[0]['role']} message, not the assistant's")
    return messages[0]


def _messages(given: Any, name: str) -> tuple[Message, ...]:
    _require(isinstance(given, list) and len(given) > 0, f"{name} is {_short(given)}, not a list of messages")
    return tuple(_message(message, f"{name}[{index}]") for index, message in enumerate(given))


def _message(given: Any, name: str) -> Message:
    """Role, content and tool calls; names and call ids, which the template does not print, are left out."""
    _require(isinstance(given, dict), f"{name} is {_short(given)}, not an object")
    role, content, calls = given.get("role"), given.get("content"), given.get("tool_calls") or []
    _require(role in ROLES, f"{name}.role is {_short(role)}; known are {', '.join(ROLES)}")
    _require(isinstance(calls, list) and (not calls or role == "assistant"), f"{name}.tool_calls cannot stand there")
    content = "" if content is None and calls else content
    _require(isinstance(content, str), f"{name}.content is {_short(content)}, not a text")
    message: Message = {"role": role, "content": content}
    message["content"].encode()
    return {**message, "tool_calls": [_call(call, f"{name}.tool_calls") for call in calls]} if calls else message


def _call(given: Any, name: str) -> dict[str, Any]:
    """One call in OpenAI form; arguments may be an object or its JSON text."""
    function = given.get("function") if isinstance(given, dict) else None
    _require(isinstance(function, dict) and isinstance(function.get("name"), str), f"{name}: a function has no name")
    assert isinstance(function, dict)
    arguments = function.get("arguments", {})
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    _require(isinstance(arguments, dict), f"{name}: arguments of {function['name']} are not an object")
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _tools(given: Any) -> tuple[Tool, ...]:
    """Function schemas, bare or wrapped as `{"type": "function", "function": …}`."""
    _require(isinstance(given, list) and all(isinstance(tool, dict) for tool in given), "tools is no list of objects")
    functions = [tool.get("function", tool) for tool in given]
    _require(all(isinstance(f, dict) and isinstance(f.get("name"), str) for f in functions), "a tool has no name")
    return tuple({"type": "function", "function": function} for function in functions)


def _check(given: Any) -> Check | None:
    if given is None:
        return None
    _require(isinstance(given, dict) and isinstance(given.get("name"), str), f"check {_short(given)} has no name")
    args = given.get("args", {})
    _require(isinstance(args, dict), f"check.args is {_short(args)}, not an object")
    return Check(given["name"], args)


def _short(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
