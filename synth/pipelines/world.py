"""Tasks of the procedural world, worded by the teacher (`from: synth`).

A text is kept when it is faithful to its task, new, and on the training side of the world; its check comes from the
task, so it does not depend on the teacher.
"""

from dataclasses import replace

from posttrain.data.rows import Prompt, content_id
from posttrain.data.shares import largest_remainder
from synth.capabilities import WORDINGS, WORLD
from synth.operators import Item, Work, ask, sift
from synth.pipelines.world_spec import WorldConfig, asked
from synth.world import Spec, capability_of, faithful, prompt_from, seeds, split


def make(work: Work) -> None:
    """Draw tasks, have them worded, keep the faithful texts; then once more for what lacks."""
    template, _ = WORDINGS[work.capability]
    for number, wanted in work.passes():
        seed = work.job.rng("specs", work.capability, number).getrandbits(32)
        items = [_item(spec) for spec in draw_specs(work.capability, work.config, asked(wanted), seed)]
        items = _once(work, items, template)
        items = ask(work, items, template, into="text", draws=f"prompts-{number}")
        items = sift(
            work, items, lambda item: "" if faithful(item["spec"], item["text"]) else "unfaithful", "check", "text"
        )
        for item in items:
            keep_training_side(work, item, _prompt(work, item))


def draw_specs(capability: str, config: WorldConfig, count: int, seed: int) -> list[Spec]:
    """`count` specs of the source's level; languages in equal parts, lengths as the source says."""
    if capability == "multilingual":
        parts = largest_remainder(dict.fromkeys(config.languages, 1.0), count)
        return [
            spec
            for language, part in parts.items()
            for spec in seeds(
                capability, part, int(content_id(seed, language)[:8], 16), config.level, language=language
            )
        ]
    options = {"lengths": config.lengths} if capability == "long_context" else {}
    return seeds(capability, count, seed, config.level, **options)


def _item(spec: Spec) -> Item:
    values = {"spec": spec, **capability_of(spec["capability"]).operator(spec)}
    return Item(content_id(spec), values, spec.get("language", "en"), (content_id(spec),))


def _once(work: Work, items: list[Item], template: str) -> list[Item]:
    """One item for each text that would be asked."""
    of_text: dict[str, Item] = {}
    for item in items:
        text = work.wording(template).render(item.values)
        if text in of_text:
            work.drop(item, "seeds", "same task twice", text)
        of_text[text] = item
    return list(of_text.values())


def _prompt(work: Work, item: Item) -> Prompt:
    made_by = {**item.made_by, "level": item["spec"]["level"]}
    return replace(
        prompt_from(item["spec"], item["text"]), source=made_by["model"], parents=item.parents, made_by=made_by
    )


def keep_training_side(work: Work, item: Item, prompt: Prompt) -> None:
    """Keep a prompt, unless it is of a capability of the world and on the side that is held out."""
    if work.capability in WORLD and split(prompt) == "heldout":
        work.drop(item, "keep", "held-out split", row=prompt)
    else:
        work.keep(item, prompt)
