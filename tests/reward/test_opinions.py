"""A judge as scorer: asked once for answers that say the same; what it does not say is no score."""

from posttrain.data.rows import gather
from posttrain.data.tables import read_table
from reward import opinions, score
from reward.score_spec import ScoreConfig
from tests.reward.conftest import ask, say
from tests.reward.test_annotate import ScriptedEngine


def test_a_judges_grades_are_scores_and_its_silence_is_none(job_of, folder_of, monkeypatch):
    asked = []

    def says(text):
        answer = next(name for name in ("Rom", "Ulm", "Bonn") if name in text.split("[answer]")[-1])
        asked.append(answer)
        return {"Rom": "It is.\nScore: 9", "Ulm": "Score: 2", "Bonn": "I cannot say."}[answer]

    monkeypatch.setattr(opinions, "open_engine", lambda model, machine: ScriptedEngine(says))
    prompt = ask("Capital of Italy?")
    responses = say(prompt, "Rom", "Ulm", " Rom", "Bonn")
    inputs = {**folder_of(prompts=[prompt], responses=responses), "judge": "a judge"}
    job = job_of(ScoreConfig(reward=0.0, judge=1.0), inputs)
    score.run(job)
    [item] = gather([prompt], responses, read_table(job.folder, "scores"))
    assert item.scores["judge"] == (9.0, 2.0, 9.0, None)
    assert sorted(asked) == ["Bonn", "Rom", "Ulm"]
    assert job.summary["judge"] == {"model": "teacher", "answers": 3, "unreadable_verdicts": 1}
    combined = item.scores["combined"]
    assert combined[0] == combined[2] > combined[3] > combined[1]
