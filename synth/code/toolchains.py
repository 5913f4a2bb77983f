"""Programs in several languages, run in the sandbox: a solution, and a second text that uses it (tests, or a program
that prints results).

A run counts as finished when a word that only its harness knows is printed at its end: a solution that leaves the
process early has not passed anything.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.checks.sandbox import Limits, Ran, fault, unsandboxed
from posttrain.checks.walls import ENVIRONMENT, SYSTEM
from posttrain.data.rows import content_id
from posttrain.errors import UserError
from synth.code.languages import LANGUAGES
from synth.code.linting import findings
from synth.operators import Item, Unreadable, Work, execute, parse, sift
from synth.operators.parsing import FENCE

LIMITS = Limits(seconds=30.0, processes=64, memory=2 << 30)
"""A compiler on a busy machine (TypeScript's takes 1 to 2 GiB of addresses), and what it made."""
SHOWN = 3_000
"""Characters at the end of each output that are kept: where the reason stands."""
PHP = "<?php"
PYTHON = "python3"
"""Stands for the sandbox's own interpreter."""
SLOW = {"time": "ran too long", "memory": "needed too much memory", "output": "wrote too much"}

_DRIVER = """\
import json, subprocess, sys
told = json.loads({payload!r})
for name, text in told["files"].items():
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
for step, command in told["commands"]:
    command = [sys.executable if part == {python!r} else part for part in command]
    with open("out.txt", "wb") as out, open("err.txt", "wb") as err:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err).returncode
    if code:
        break
read = lambda name: open(name, encoding="utf-8", errors="replace").read(1 << 20)[-told["shown"]:]
print(json.dumps([step, code, read("out.txt"), read("err.txt")]))
"""
"""Output goes to files, so that a program that never stops writing meets the limit of a file, not of this driver."""

_TYPED = "console.log('{word}')\ndeclare function require(name: string): any"
"""Node's own function, of which the compiler is told here."""

_PYTHON = """\
names = {{"__name__": "solution"}}
for name in ("solution.py", "tests.py"):
    exec(compile(open(name, encoding="utf-8").read(), name, "exec"), names)
print({word!r})
"""


@dataclass(frozen=True)
class Toolchain:
    """How a language is checked and run. `files(solution, rest, word)` are the files that `commands` work on, in which
    `rest` is run after the solution and then `word` is printed."""

    needs: tuple[str, ...]
    """Programs that must be there, for people to install."""
    files: Callable[[str, str, str], Mapping[str, str]]
    commands: tuple[tuple[str, tuple[str, ...]], ...]
    """(step, command); the first that fails ends it."""
    source: str
    """The file that the solution alone would be."""
    syntax: tuple[str, ...]
    """The command that only parses it."""


def _python(solution: str, rest: str, word: str) -> Mapping[str, str]:
    return {"solution.py": solution, "tests.py": rest, "main.py": _PYTHON.format(word=word)}


def _scripted(name: str, end: str) -> Callable[[str, str, str], Mapping[str, str]]:
    return lambda solution, rest, word: {name: f"{solution}\n{rest}\n{end.format(word=word)}\n"}


def _compiled(name: str) -> Callable[[str, str, str], Mapping[str, str]]:
    end = '#include <stdio.h>\nint main(void) {{ tests(); puts("\\n{word}"); return 0; }}'
    return _scripted(name, end)


def _php(solution: str, rest: str, word: str) -> Mapping[str, str]:
    """One opening tag, however many parts begin with one."""
    parts = [part.strip().removeprefix(PHP).removesuffix("?>") for part in (solution, rest)]
    return {"main.php": f'{PHP}\n{parts[0]}\n{parts[1]}\necho "\\n{word}\\n";\n'}


_TSC = ("tsc", "--strict", "--target", "es2022", "--module", "commonjs")
TOOLCHAINS = {
    "python": Toolchain(
        (), _python, (("run", (PYTHON, "main.py")),), "solution.py",
        (PYTHON, "-c", "compile(open('solution.py', encoding='utf-8').read(), 'solution.py', 'exec')"),
    ),
    "javascript": Toolchain(
        ("node",), _scripted("main.js", "console.log('{word}')"), (("run", ("node", "main.js")),),
        "main.js", ("node", "--check", "main.js"),
    ),
    "bash": Toolchain(
        ("bash",), _scripted("main.sh", "echo {word}"), (("run", ("bash", "-e", "main.sh")),), "main.sh",
        ("bash", "-n", "main.sh"),
    ),
    "c": Toolchain(
        ("gcc",), _compiled("main.c"),
        (("compile", ("gcc", "-std=c11", "-Wall", "-o", "main", "main.c", "-lm")), ("run", ("./main",))),
        "main.c", ("gcc", "-std=c11", "-fsyntax-only", "main.c"),
    ),
    "c++": Toolchain(
        ("g++",), _compiled("main.cpp"),
        (("compile", ("g++", "-std=c++17", "-Wall", "-o", "main", "main.cpp")), ("run", ("./main",))),
        "main.cpp", ("g++", "-std=c++17", "-fsyntax-only", "main.cpp"),
    ),
    "typescript": Toolchain(
        ("node", "tsc"), _scripted("main.ts", _TYPED), (("compile", (*_TSC, "main.ts")), ("run", ("node", "main.js"))),
        "main.ts", (*_TSC, "--noEmit", "main.ts"),
    ),
    "php": Toolchain(
        ("php",), _php, (("run", ("php", "-n", "-d", "zend.assertions=1", "main.php")),), "main.php",
        ("php", "-n", "-l", "main.php"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a program ended. `finished`: to its end without an error."""

    finished: bool
    step: str
    """`compile` or `run`."""
    code: int | None
    """None where it was ended over a limit."""
    stdout: str
    stderr: str

    def told(self) -> str:
        """For whoever is to mend it: stdout, stderr and return code."""
        ended = "It was ended: it " + self.stderr if self.code is None else f"return code: {self.code}"
        early = self.code == 0 and not self.finished
        parts = [f"step: {self.step}", ended, *(["It ended before its tests did."] if early else [])]
        parts += [f"{name}:\n{text.strip()}" for name, text in (("stdout", self.stdout), ("stderr", self.stderr))
                  if text.strip() and self.code is not None]  # fmt: skip
        return "\n".join(parts)


def ready() -> None:
    """Raise UserError where programs cannot be linted or run here: before a teacher is asked for any."""
    findings([""])
    if not unsandboxed() and (why := fault()):
        raise UserError(f"code that a teacher writes is run before it is kept: {why}")


def lacking(language: str) -> str:
    """Which programs of a language the sandbox would not find; empty where it has all."""
    return ", ".join(name for name in TOOLCHAINS[language].needs if program_of(name) is None)


def program_of(name: str) -> str | None:
    """The file of a program, as the sandbox has it: behind links, which may lead through folders that are not there."""
    found = shutil.which(name, path=ENVIRONMENT["PATH"])
    path = os.path.realpath(found) if found else ""
    return path if any(path.startswith(f"{folder}/") for folder in SYSTEM) else None


def run_with(work: Work, items: Sequence[Item], parts: Callable[[Item], tuple[str, str, str]], step: str) -> list[Item]:
    """Run `parts(item)`, (language, solution, rest), of each item; how it ended comes into `outcome`."""

    def program(item: Item) -> str:
        language, solution, rest = parts(item)
        chain = TOOLCHAINS[language]
        return driver(chain.files(solution, rest, _word(solution, rest)), chain.commands)

    done = execute(work, items, program, limits=LIMITS, must_end=False, step=step)
    return [item.plus(ran=None, outcome=outcome(item["ran"], _word(*parts(item)[1:]))) for item in done]


def parsed(work: Work, items: Sequence[Item], language: str, of: str, step: str) -> list[Item]:
    """The items whose code `of` the parser of their language, which stands under `language`, takes."""

    def program(item: Item) -> str:
        chain = TOOLCHAINS[item[language]]
        return driver({chain.source: item[of]}, (("parse", chain.syntax),))

    done = execute(work, items, program, limits=LIMITS, must_end=False, step=step)
    return sift(work, done, lambda item: "syntax" if outcome(item["ran"], "").code != 0 else "", f"{step}: parser", of)


def driver(files: Mapping[str, str], commands: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """The Python program that writes the files, runs the commands, and tells how the last of them ended."""
    found = [(step, [program_of(command[0]) or command[0], *command[1:]]) for step, command in commands]
    payload = {"files": dict(files), "commands": found, "shown": SHOWN}
    return _DRIVER.format(payload=json.dumps(payload), python=PYTHON)


def _word(solution: str, rest: str) -> str:
    """The same in every run, for the journal's sake, and nothing that a text can hold of itself."""
    return content_id("ended", solution, rest)


def outcome(ran: Ran, word: str) -> Outcome:
    """What a driver told; of one that was ended, why."""
    if ran.ended != "exit":
        return Outcome(False, "run", None, "", SLOW[ran.ended])
    try:
        found: Any = json.loads(ran.stdout)
        step, code, stdout, stderr = found
    except ValueError:
        return Outcome(False, "run", ran.code or 1, "", ran.stderr[-SHOWN:])
    said, at_end, rest = stdout.rstrip("\n").rpartition(word) if word else (stdout, "", "")
    finished = code == 0 and bool(at_end) and not rest
    return Outcome(finished, step, code, said.rstrip("\n") if at_end else stdout, stderr)


def read_blocks(work: Work, items: Sequence[Item], language: str, of: str, into: str, step: str) -> list[Item]:
    """The one fenced block of each item's text `of`, in the language that stands under `language`."""
    kept = []
    for name in sorted({item[language] for item in items}):
        kept += parse(work, [item for item in items if item[language] == name], block(name), of, into, step)
    return kept


def block(language: str) -> Callable[[str], str]:
    """A reader of a text's one fenced block in the language. Raises Unreadable for none or several."""
    marks = LANGUAGES[language].marks

    def read(text: str) -> str:
        found = [body for mark, body in FENCE.findall(text) if mark.lower() in marks]
        if len(found) != 1 or not found[0].strip():
            raise Unreadable("several code blocks" if len(found) > 1 else "no code block")
        return str(found[0]).rstrip() + "\n"

    return read
