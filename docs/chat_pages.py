"""What docs/chat.md and docs/masks.md show, from real renderings: `python docs/chat_pages.py`.

Writes the table of dialects into docs/chat.md and the picture docs/masks.svg, both with the tiny family's tokenizer.
`--check` writes nothing and exits 1 when one of them is not what would be written.
"""

import html
import sys
from pathlib import Path
from typing import Any

from posttrain.chat import FORMAT, TEMPLATES, Renderer
from posttrain.data.rows import Message, Tool
from posttrain.errors import UserError

ROOT = Path(__file__).resolve().parent
TOKENIZER = ROOT.parent / "posttrain" / "tiny" / "base"
PAGE, PICTURE = ROOT / "chat.md", ROOT / "masks.svg"
MARKS = ("<!-- dialects -->", "<!-- end of dialects -->")

COLUMNS, CELL, LINE = 92, 7.25, 19
"""Of the picture: characters a line, pixels a character, pixels a line."""
COLORS = {"context": "#e8e8e8", "format, not trained": "#c9d8f0", "trained": "#b7e3c0", "format, trained": "#f6d08b"}

USER: Message = {"role": "user", "content": " Rain? "}
TOOL: Tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
SEARCH: Tool = {"type": "brave_search"}
CODE: Tool = {"type": "code_interpreter"}


def calls(*functions: tuple[str, dict[str, Any]], content: str = "") -> Message:
    tool_calls = [{"type": "function", "function": {"name": name, "arguments": args}} for name, args in functions]
    return {"role": "assistant", "content": content, "tool_calls": tool_calls}


CASES: tuple[tuple[str, list[Message], list[Tool]], ...] = (
    ("text", [USER, {"role": "assistant", "content": " Yes.\n"}], []),
    ("one call", [USER, calls(("f", {"x": 1}))], [TOOL]),
    ("one call, built-in tools on", [USER, calls(("f", {"x": 1}))], [TOOL, SEARCH]),
    ("text beside a call", [USER, calls(("f", {"x": 1}), content="Let me look.")], [TOOL]),
    ("parallel calls", [USER, calls(("f", {"x": 1}), ("f", {"x": 2}))], [TOOL]),
    ("a call in a call", [USER, calls(("f", {"x": {"name": "f", "parameters": {}}}))], [TOOL]),
    ("a built-in tool", [USER, calls(("brave_search", {"query": "rain"}))], [SEARCH]),
    ("the interpreter", [USER, calls(("code_interpreter", {"code": "print(1)"}))], [CODE]),
    ("a result that is text", [USER, calls(("f", {})), {"role": "tool", "content": "wet"}], [TOOL]),
    ("a result that is JSON", [USER, calls(("f", {})), {"role": "tool", "content": {"mm": 3}}], [TOOL]),
)


NAMES = {template: template.removeprefix("llama-3.1").removeprefix("-") or "posttrain" for template in TEMPLATES}
"""Template → what docs/chat.md calls its dialect."""


def table() -> str:
    """What each dialect writes for the last message of each case."""
    renderers = {name: Renderer.from_pretrained(TOKENIZER, template=template) for template, name in NAMES.items()}
    lines = [f"| | {' | '.join(f'`{name}`' for name in renderers)} |", f"|---|{'---|' * len(renderers)}"]
    for case, messages, tools in CASES:
        cells = [f"`{written(renderer, messages, tools)}`" for renderer in renderers.values()]
        lines.append(f"| {case} | {' | '.join('refused' if cell == '``' else cell for cell in cells)} |")
    lines += heads(renderers)
    return "\n".join(lines)


def heads(renderers: dict[str, Renderer]) -> list[str]:
    """The lines of the system turn in front of the date, for tools of both kinds."""
    lines = []
    for case, tools in (("custom tools", [TOOL]), ("brave_search", [SEARCH]), ("code_interpreter alone", [CODE])):
        cells = []
        for renderer in renderers.values():
            text = renderer.tokenizer.decode(renderer.prompt([USER], tools))
            cells.append(f"`{escaped(text.partition('system<|end_header_id|>')[2].partition('Cutting')[0][2:])}`")
        lines.append(f"| system turn, {case} | {' | '.join('nothing' if cell == '``' else cell for cell in cells)} |")
    return lines


def written(renderer: Renderer, messages: list[Message], tools: list[Tool]) -> str:
    """The last turn after its header, or nothing where the dialect refuses."""
    try:
        if messages[-1]["role"] == "assistant":
            ids = renderer.conversation(messages, tools).ids
        else:
            ids = renderer.prompt(messages, tools)
    except UserError:
        return ""
    text = renderer.tokenizer.decode(ids).removesuffix("<|start_header_id|>assistant<|end_header_id|>\n\n")
    return escaped(text.rpartition("<|end_header_id|>\n\n")[2])


def escaped(text: str) -> str:
    return text.replace("\n", "\\n").replace("|", "\\|")


def labelled(renderer: Renderer) -> list[tuple[str, str]]:
    """Tokens of the picture's conversation, each with the label that colours it."""
    messages: list[Message] = [
        {"role": "system", "content": "Answer in a word."},
        {"role": "user", "content": "Does <|eot_id|> end a turn? And will it rain?"},
        calls(("brave_search", {"query": "rain today"}), content="It does. Let me look."),
        {"role": "tool", "content": {"rain": "3 mm"}},
        {"role": "assistant", "content": "Yes."},
    ]
    made = renderer.conversation(messages, [SEARCH], train="all")
    tokens = renderer.tokenizer.convert_ids_to_tokens(made.ids)
    texts = [
        text if text.startswith("<|") else renderer.tokenizer.decode(id)
        for text, id in zip(tokens, made.ids, strict=True)
    ]
    names = list(COLORS)
    labels = [
        names[3] if mask == FORMAT else names[2] if mask else names[int(is_format)]
        for mask, is_format in zip(made.mask, made.format, strict=True)
    ]
    return list(zip(texts, labels, strict=True))


def picture(tokens: list[tuple[str, str]]) -> str:
    """An SVG with a box for every token, in the colour of its label."""
    boxes: list[str] = []
    column, row = 0, 2
    for number, (name, color) in enumerate(COLORS.items()):
        boxes.append(box(name, 23 * number, 0, color))
    for text, label in tokens:
        shown = text.replace("\n", "⏎")
        if column + len(shown) > COLUMNS:
            column, row = 0, row + 1
        boxes.append(box(shown, column, row, COLORS[label]))
        column += len(shown)
        if text.endswith("\n"):
            column, row = 0, row + 1
    width, height = round(COLUMNS * CELL) + 20, (row + 1) * LINE + 20
    style = "font-family:monospace;font-size:12px;white-space:pre"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" style="{style}">'
    title = "<title>A conversation, token by token: what is context, format and trained</title>"
    ground = f'<rect width="{width}" height="{height}" fill="white"/>'
    return "\n".join([head, title, ground, *boxes, "</svg>\n"])


def box(text: str, column: int, row: int, color: str) -> str:
    x, y, width = 10 + column * CELL, 10 + row * LINE, len(text) * CELL
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width - 1:.1f}" height="{LINE - 3}" rx="2" fill="{color}"/>'
        f'<text x="{x:.1f}" y="{y + 12}" textLength="{width - 1:.1f}" lengthAdjust="spacingAndGlyphs" '
        f'xml:space="preserve">{html.escape(text)}</text>'
    )


def main(arguments: list[str]) -> int:
    """Write both, or with `--check` compare them."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(MARKS[0])
    page = f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}"
    made = {PAGE: page, PICTURE: picture(labelled(Renderer.from_pretrained(TOKENIZER)))}
    if arguments == ["--check"]:
        stale = [path.name for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text]
        if stale:
            print(f"docs/{' and docs/'.join(stale)} not current; run: python docs/chat_pages.py")
        return int(bool(stale))
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
