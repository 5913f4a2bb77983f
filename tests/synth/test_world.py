"""The world: gold answers are right, its errors are wrong, the split holds, held-out prompts do not repeat."""

import random
from collections.abc import Iterator

import pytest

from posttrain.checks.verifiers import grade
from posttrain.data.rows import Prompt
from posttrain.errors import UserError
from synth.capabilities import WORDINGS
from synth.prompts import operator_file, operator_prompt, read_wording
from synth.world import (
    CAPABILITIES,
    Example,
    capability_of,
    example,
    faithful,
    heldout,
    make,
    prompt_from,
    seeds,
    split,
)  # fmt: skip
from synth.world.corpus import Mixture, conversation
from synth.world.long_context import count_words
from synth.world.noise import ERRORS, RIGHT_SHARES, feature, fitting, noisy

EACH = pytest.mark.parametrize("capability", CAPABILITIES)
SHORT = {"long_context": {"lengths": (256,)}}


def drawn(capability: str, n: int, seed: int = 1) -> Iterator[Example]:
    rng = random.Random(seed)
    for i in range(n):
        yield make(capability, rng, "train", 1 + i % 2, **SHORT.get(capability, {}))


@EACH
def test_gold_is_right_and_every_error_wrong(capability: str) -> None:
    for one in drawn(capability, 200):
        assert one.prompt.check is not None
        assert grade(one.prompt.check, one.gold).value == 1.0
        shallow, deep = (fitting(errors, one.spec, one.gold) for errors in ERRORS[capability])
        assert shallow
        for wrong in shallow + deep:
            assert grade(one.prompt.check, wrong).value == 0.0, (one.spec, wrong)


@EACH
def test_held_out_prompts_differ_from_each_other_and_from_training(capability: str) -> None:
    lengths = (128,) if capability == "long_context" else None
    held = heldout(capability, 500, seed=3, levels=(1, 2), lengths=lengths)
    assert len({prompt.id for prompt in held}) == 500
    assert {split(prompt) for prompt in held} == {"heldout"}
    again = heldout(capability, 500, seed=3, levels=(1, 2), lengths=lengths)
    assert [prompt.id for prompt in again] == [prompt.id for prompt in held]


@EACH
def test_few_of_1000_held_out_draws_repeat(capability: str) -> None:
    rng = random.Random(5)
    options = {"lengths": (128,)} if capability == "long_context" else {}
    ids = [make(capability, rng, "heldout", 1 + i % 2, **options).prompt.id for i in range(1000)]
    assert len(set(ids)) > 930


@EACH
def test_the_worlds_own_wording_is_faithful_and_another_specs_is_not(capability: str) -> None:
    rng = random.Random(2)
    specs = seeds(capability, 100, seed=4, **SHORT.get(capability, {}))
    texts = [capability_of(capability).state(spec, rng) for spec in specs]
    assert all(faithful(spec, text) for spec, text in zip(specs, texts, strict=True))
    crossed = sum(faithful(spec, text) for spec, text in zip(specs, texts[1:], strict=False))
    assert crossed <= 8  # neighbours that happen to ask the same


@EACH
def test_a_teachers_wording_gets_the_specs_check(capability: str) -> None:
    spec = seeds(capability, 1, seed=9, **SHORT.get(capability, {}))[0]
    own = example(spec, random.Random(0)).prompt
    assert prompt_from(spec, "Other words.").check == own.check


@EACH
def test_noise_keeps_each_features_share_of_right_answers(capability: str) -> None:
    rng = random.Random(8)
    graded: dict[tuple[object, ...], list[float]] = {}
    for one in drawn(capability, 3000):
        assert one.prompt.check is not None
        value = grade(one.prompt.check, noisy(one, rng)).value
        assert value is not None
        graded.setdefault(feature(one), []).append(value)
    shares = [sum(values) / len(values) for values in graded.values() if len(values) >= 40]
    assert len(shares) >= (6 if capability == "long_context" else 20)
    assert all(min(abs(share - planned) for planned in RIGHT_SHARES[capability]) < 0.2 for share in shares)
    assert min(shares) > 0.1


@pytest.mark.parametrize("length", [256, 1024, 2000])
@pytest.mark.parametrize("level", [1, 2])
def test_haystacks_are_as_long_as_asked(length: int, level: int) -> None:
    one = make("long_context", random.Random(length), "train", level, lengths=(length,))
    words = count_words(one.prompt.messages[0]["content"])
    assert length - 60 <= words <= length
    for key, value in one.spec["needles"]:
        assert one.prompt.messages[0]["content"].count(f"The code of {key} is {value}.") == 1


def test_dense_rows_hold_no_held_out_prompt() -> None:
    rng = random.Random(3)
    mixture = Mixture(dense=1.0, long_context=0.0)
    for _ in range(100):
        row = conversation(rng, mixture)
        asked = [m for m in row.messages if m["role"] == "user"]
        alone = [m for m in row.messages if m["role"] == "tool"]
        if not alone:
            assert all(split(Prompt((message,), "")) == "train" for message in asked)


def test_a_missing_variable_names_file_and_line() -> None:
    with pytest.raises(UserError, match=r"new_prompt\.jinja:1.*'calls' is undefined"):
        operator_prompt("tool_use/new_prompt", call="{}")


def test_an_unknown_operator_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="known for tool_use are new_prompt"):
        operator_prompt("tool_use/evolve")


def test_every_capability_has_a_template_that_words_its_tasks() -> None:
    assert WORDINGS.keys() == CAPABILITIES.keys()
    for capability, (template, variables) in WORDINGS.items():
        read_wording(operator_file(template)).check(variables)
        assert set(capability_of(capability).operator(next(drawn(capability, 1)).spec)) == set(variables)


def test_an_unknown_capability_is_named() -> None:
    with pytest.raises(UserError, match="no capability 'cooking'"):
        make("cooking", random.Random(0), "train")
