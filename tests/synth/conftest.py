"""A synthesis stage on a teacher of the test's choice."""

import pytest

from posttrain.endpoint import Endpoint
from posttrain.errors import UserError
from posttrain.stages import External, Job, Size
from synth import generate
from synth.generate_spec import SPEC, GenerateConfig


class Files:
    """What a spec asks of the plan, with files as they are."""

    name, round = "synthesize", 1

    def __init__(self, teacher, folder, made=None):
        self.teacher, self.folder, self.made = teacher, folder, made or {}
        """`made`: kind → folders of what stages before have made."""

    def model(self, name, served=False):
        return External("stub", "f", Size(), self.teacher) if isinstance(self.teacher, Endpoint) else self.teacher

    def file(self, path):
        return External(str(self.folder / path), "f", Size())

    data = file

    def all_rounds(self, kind):
        return self.made.get(kind, [])

    def newest(self, kind, optional=False):
        if kind not in self.made:
            raise UserError(f"needs {kind}, and no stage before it makes any")
        return self.made[kind][-1]


def plain(value):
    """An input as a job gets it."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.served or value.source if isinstance(value, External) else value


@pytest.fixture
def synthesize(tmp_path):
    """`synthesize(teacher, prompts, name, …)` plans and runs the stage; files are looked for in `tmp_path`."""

    def synthesize(teacher, prompts, name="out", seed=7, fields=(), made=None, **config):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        config = GenerateConfig(prompts=prompts, **{"chunk": 8, **config})
        inputs = {key: plain(value) for key, value in SPEC.wire(config, Files(teacher, tmp_path, made)).items()}
        job = Job(config, inputs, folder, seed, 2, "synthesize", **dict(fields))
        generate.run(job)
        return job

    return synthesize
