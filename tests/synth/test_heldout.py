"""Evaluation prompts of the world: how many of what, all of the held-out side, the same for every seed of a recipe."""

from collections import Counter

import pytest
from pydantic import ValidationError

from posttrain.data.tables import read_table
from posttrain.stages import Job
from synth import world
from synth.capabilities import WORLD
from synth.heldout import run
from synth.heldout_spec import SPEC, HeldoutConfig


@pytest.fixture
def heldout(tmp_path):
    def heldout(job_seed=0, **config):
        folder = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        job = Job(HeldoutConfig(**config), {}, folder, job_seed)
        run(job)
        return read_table(folder, "prompts")

    return heldout


def test_the_names_in_the_spec_are_the_worlds():
    assert set(WORLD) == set(world.CAPABILITIES)


def test_shares_and_levels_are_as_asked_and_no_prompt_comes_twice(heldout):
    prompts = heldout(n=31, capabilities={"multilingual": 2, "instructions": 1})
    assert Counter(prompt.capability for prompt in prompts) == {"multilingual": 21, "instructions": 10}
    assert Counter((p.capability, p.made_by["level"]) for p in prompts) == {
        ("multilingual", 1): 11, ("multilingual", 2): 10, ("instructions", 1): 5, ("instructions", 2): 5,
    }  # fmt: skip
    assert len({prompt.id for prompt in prompts}) == 31
    assert {world.split(prompt) for prompt in prompts} == {"heldout"}
    assert all(prompt.check and prompt.source == "world" for prompt in prompts)


def test_other_prompts_for_another_seed_of_its_own_but_not_for_the_recipes(heldout):
    first = [prompt.id for prompt in heldout(n=8)]
    assert first == [prompt.id for prompt in heldout(job_seed=5, n=8)]
    assert not set(first) & {prompt.id for prompt in heldout(n=8, seed=1)}


def test_lengths_are_those_of_the_config(heldout):
    short, long = (
        heldout(n=4, capabilities={"long_context": 1}, lengths=(length,))[0].messages[0]["content"]
        for length in (256, 1024)
    )
    assert len(long) > 3 * len(short)


@pytest.mark.parametrize(
    "config", [{"capabilities": {}}, {"capabilities": {"cooking": 1}}, {"levels": [3]}, {"lengths": [0]}, {"n": 0}]
)
def test_configs_that_are_none(config):
    with pytest.raises(ValidationError):
        HeldoutConfig(**config)


def test_the_estimate_counts_long_prompts_by_their_lengths():
    config = HeldoutConfig(n=10, capabilities={"long_context": 1}, lengths=(300, 500))
    assert SPEC.estimate(config, {}, None).tokens == 4000
