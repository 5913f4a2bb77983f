"""Programs: pass@k over tests that run in the sandbox."""

from collections.abc import Iterator

from eval.suites.code_spec import CodeConfig
from eval.suites.making import Answering, Item, about, asks, file_items, reference, says, write_suite
from posttrain.data.records import Record
from posttrain.data.rows import Check
from posttrain.stages import Job

FORM = "Answer with the whole function in one ```python block."
TASKS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Write add(a, b), which returns the sum of two numbers.", "def add(a, b):\n    return a + b",
     ("assert add(2, 3) == 5", "assert add(-1, 1) == 0")),
    ("Write is_even(n), which says whether an integer is even.", "def is_even(n):\n    return n % 2 == 0",
     ("assert is_even(4) is True", "assert is_even(7) is False", "assert is_even(0) is True")),
    ("Write largest(xs), which returns the largest number of a list.", "def largest(xs):\n    return max(xs)",
     ("assert largest([3, 9, 2]) == 9", "assert largest([-5, -2]) == -2")),
    ("Write reversed_text(s), which returns a text backwards.", "def reversed_text(s):\n    return s[::-1]",
     ("assert reversed_text('abc') == 'cba'", "assert reversed_text('') == ''")),
    ("Write count_vowels(s), which counts the letters a, e, i, o and u of a text in lower case.",
     "def count_vowels(s):\n    return sum(c in 'aeiou' for c in s)",
     ("assert count_vowels('banana') == 3", "assert count_vowels('rhythm') == 0")),
    ("Write factorial(n), which returns n! for n of 0 or more.",
     "def factorial(n):\n    return 1 if n < 2 else n * factorial(n - 1)",
     ("assert factorial(5) == 120", "assert factorial(0) == 1")),
    ("Write unique(xs), which returns a list's items without repeats, in order of their first place.",
     "def unique(xs):\n    return list(dict.fromkeys(xs))",
     ("assert unique([3, 1, 3, 2, 1]) == [3, 1, 2]", "assert unique([]) == []")),
    ("Write digits_sum(n), which returns the sum of the digits of an integer of 0 or more.",
     "def digits_sum(n):\n    return sum(map(int, str(n)))",
     ("assert digits_sum(907) == 16", "assert digits_sum(0) == 0")),
    ("Write is_palindrome(s), which says whether a text reads the same backwards.",
     "def is_palindrome(s):\n    return s == s[::-1]",
     ("assert is_palindrome('level') is True", "assert is_palindrome('ab') is False")),
    ("Write fibonacci(n), which returns the first n Fibonacci numbers as a list that begins with 0 and 1.",
     "def fibonacci(n):\n    out = [0, 1]\n    while len(out) < n:\n        out.append(out[-1] + out[-2])\n"
     "    return out[:n]",
     ("assert fibonacci(7) == [0, 1, 1, 2, 3, 5, 8]", "assert fibonacci(1) == [0]")),
)  # fmt: skip
"""What is asked where there is no file: task, solution, tests."""


def run(job: Job) -> None:
    config: CodeConfig = job.config
    items = file_items(job, _of_record) if "file" in job.inputs else _made(config.n)
    answering = Answering("code", n=config.samples, temperature=config.temperature, passes=config.passes,
                          max_new_tokens=config.max_new_tokens)  # fmt: skip
    write_suite(job, items, answering)


def _made(n: int) -> Iterator[Item]:
    for task, solution, tests in TASKS[:n]:
        yield _item(task, solution, list(tests), {})


def _item(task: str, solution: str | None, tests: list[str], labels: dict[str, object]) -> Item:
    gold = says(f"```python\n{solution}\n```") if solution else None
    return Item(asks(f"{task}\n{FORM}"), Check("python_tests", {"tests": tests}), gold, about=labels)


def _of_record(record: Record) -> Item:
    if "entry_point" in record:
        head, entry = str(reference(record, "prompt")), str(record["entry_point"])
        test = f"{reference(record, 'test')}\ncheck({entry})"
        body = record.get("canonical_solution")
        return _item(f"Complete this function.\n```python\n{head}\n```", f"{head}{body}" if body else None, [test], {})
    tests = [str(test) for test in reference(record, "test_list", "tests")]
    # MBPP's tests name the function that is wanted, so they are shown, as in its paper (arXiv 2108.07732).
    shown = f"{reference(record, 'text', 'prompt')}\nYour code should pass these tests:\n" + "\n".join(tests)
    return _item(shown, record.get("code") or record.get("reference"), tests, about(record))
