"""Hand-made prompts and responses on disk, and jobs over them."""

import json

import pytest

from posttrain.data.rows import Check, Prompt, Response, Score
from posttrain.data.tables import write_table
from posttrain.machine import Machine
from posttrain.stages import Job

MACHINE = Machine(device="cpu", threads=1)


def ask(text, answer="Rom", capability="general"):
    return Prompt(({"role": "user", "content": text},), capability, check=Check("exact", {"answers": [answer]}))


def say(prompt, *texts, finish="stop"):
    return [
        Response(prompt.id, index, text, "length" if text.endswith("…") else finish, len(text), -1.0, {"model": "base"})
        for index, text in enumerate(texts)
    ]


@pytest.fixture
def folder_of(tmp_path):
    """`folder_of(prompts=[...], responses=[...])` writes each table into a folder of its own: name → folder."""

    def write(**tables):
        folders = {}
        for name, rows in tables.items():
            folders[name] = tmp_path / "inputs" / name
            folders[name].mkdir(parents=True)
            write_table(folders[name], name, rows)
        return folders

    return write


@pytest.fixture
def job_of(tmp_path):
    """`job_of(config, inputs)`: a job with a fresh folder, or the one named."""

    def make(config, inputs, name="stage", **more):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return Job(config=config, inputs=inputs, folder=folder, seed=7, name=name, machine=MACHINE, **more)

    return make


def scores_of(responses, **values):
    return [
        Score(response.id, scorer, value)
        for scorer, listed in values.items()
        for response, value in zip(responses, listed, strict=True)
    ]


def call(name, **arguments):
    return json.dumps({"name": name, "parameters": arguments})
