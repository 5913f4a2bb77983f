"""Making a suite as its stage does."""

import importlib
import json

import pytest

from posttrain.data.tables import read_table
from posttrain.machine import Machine
from posttrain.stages import Job


@pytest.fixture
def make(tmp_path, tiny_model):
    """Run a suite's stage with these fields, or on these records; returns its job and its prompts."""

    def make(suite, records=None, name="mine", **fields):
        folder = tmp_path / name
        folder.mkdir()
        inputs = {"tokenizer": tiny_model} if suite == "long_context" else {}
        spec = importlib.import_module(f"eval.suites.{suite}_spec").SPEC
        if records is not None:
            inputs["file"] = tmp_path / f"{name}.jsonl"
            inputs["file"].write_text("".join(json.dumps(record) + "\n" for record in records))
            if spec.Config.model_fields.get("path"):
                fields["path"] = str(inputs["file"])
        job = Job(spec.Config(**fields), inputs, folder, 7, 0, name, Machine(device="cpu", threads=1))
        importlib.import_module(f"eval.suites.{suite}").run(job)
        return job, read_table(folder, "prompts")

    return make
