"""Synthesis: specs of the world worded by the teacher, prompts of people's files, teacher's answers to a share of both.

A prompt the teacher wrote is kept when it is faithful to its spec, new, and on the training side of the world; its
check comes from the spec. An answer is kept when it ends by itself, calls no tool that is not declared and no tool in a
way that the teacher's own template has no words for, and its prompt's check passes, where there is one (P 4.3.3:
filtered by a correct final answer). Every drop is counted by reason in the summary.
"""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from posttrain.chat import parse_message
from posttrain.chat.messages import undeclared
from posttrain.chat.parse import USUAL
from posttrain.checks.verifiers import grade
from posttrain.data.read import read_rows
from posttrain.data.rows import Prompt, Response, Row, content_id
from posttrain.data.shares import largest_remainder
from posttrain.data.tables import write_table
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling, open_engine
from posttrain.errors import UserError
from posttrain.stages import Job
from synth.capabilities import WORLD
from synth.generate_spec import GenerateConfig, PromptSource, asked, file_input
from synth.world import Spec, faithful, operator_text, prompt_from, seeds, split

HASH_STEPS = 10_000
"""The share of answered prompts is kept to a ten-thousandth."""
UNFINISHED = {"length": "cut", "too_long": "too long for the model", "refused": "refused by the server"}
"""Why a text that did not end by itself is dropped."""
PASSES = 2
"""Asking for more than wanted, then once for what still lacks."""


@dataclass
class Pool:
    """Prompts kept so far of one capability, and what was dropped on the way, by reason."""

    wanted: int
    kept: dict[str, Prompt] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)

    @property
    def lacking(self) -> int:
        return max(0, self.wanted - len(self.kept))


def run(job: Job) -> None:
    config: GenerateConfig = job.config
    pools = {name: _from_file(job, name, source) for name, source in config.prompts.items() if source.from_ == "file"}
    pools |= {name: Pool(source.rows) for name, source in config.prompts.items() if source.from_ == "synth"}
    with closing(open_engine(job.inputs["teacher"], job.machine)) as teacher:
        for number in range(1, PASSES + 1):
            _write_prompts(job, teacher, pools, number)
        prompts = _cut_to_size(pools, job.seed)
        if not prompts:
            raise UserError(f"{config.model} wrote no usable prompt; drops by reason: {_drops(pools)}")
        rows, dropped_answers = _answer(job, teacher, prompts)
    job.rows["prompts"] = write_table(job.folder, "prompts", prompts)
    job.rows["rows"] = write_table(job.folder, "rows", rows)
    job.summary["prompts"] = {
        name: {"wanted": pool.wanted, "kept": len(pool.kept)} for name, pool in sorted(pools.items())
    }
    job.summary["drops"] = {**_drops(pools), "answers": dropped_answers}


def _drops(pools: dict[str, Pool]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(pool.drops.items())) for name, pool in sorted(pools.items())}


def _from_file(job: Job, capability: str, source: PromptSource) -> Pool:
    """A file's prompts of this capability; where that is one of the world's, only those on its training side."""
    pool = Pool(source.rows)
    read: list[Prompt] = read_rows(Path(job.inputs[file_input(capability)]), "prompts", capability)
    for prompt in read:
        reason = "held-out split" if capability in WORLD and split(prompt) == "heldout" else None
        _keep(pool, prompt, "other capability" if prompt.capability != capability else reason)
    return pool


def _keep(pool: Pool, prompt: Prompt, reason: str | None) -> None:
    """Into the pool, or counted as dropped for the reason or as a duplicate."""
    if reason is None and prompt.id in pool.kept:
        reason = "duplicate"
    if reason is None:
        pool.kept[prompt.id] = prompt
    else:
        pool.drops[reason] += 1


def _write_prompts(job: Job, teacher: Engine, pools: dict[str, Pool], number: int) -> None:
    """One pass: every pool that lacks prompts asks the teacher for them."""
    config: GenerateConfig = job.config
    spec_of: dict[str, Spec] = {}
    requests: dict[str, Prompt] = {}
    for name, pool in pools.items():
        source = config.prompts[name]
        if source.from_ == "synth" and pool.lacking:
            for spec in draw_specs(name, source, asked(pool.lacking), job.rng("specs", name, number).getrandbits(32)):
                request = Prompt(({"role": "user", "content": operator_text(spec)},), name)
                pool.drops["same task twice"] += request.id in requests
                requests[request.id], spec_of[request.id] = request, spec
    sampling = Sampling(1, config.temperature, config.top_p, config.max_new_tokens)
    texts = answer_prompts(job, teacher, requests.values(), sampling, config.chunk, config.model, f"prompts-{number}")
    for response in texts:
        spec = spec_of[response.prompt_id]
        prompt, reason = _worded(spec, response)
        _keep(pools[spec["capability"]], prompt, reason)


def draw_specs(capability: str, source: PromptSource, count: int, seed: int) -> list[Spec]:
    """`count` specs of the source's level; languages in equal parts, lengths as the source says."""
    if capability == "multilingual":
        parts = largest_remainder(dict.fromkeys(source.languages, 1.0), count)
        return [
            spec
            for language, part in parts.items()
            for spec in seeds(capability, part, content_seed(seed, language), source.level, language=language)
        ]
    options = {"lengths": source.lengths} if capability == "long_context" else {}
    return seeds(capability, count, seed, source.level, **options)


def content_seed(*parts: object) -> int:
    return int(content_id(*parts)[:8], 16)


def _worded(spec: Spec, response: Response) -> tuple[Prompt, str | None]:
    """The prompt of a spec in the teacher's words, and why it cannot be used, if so."""
    text = response.text.strip()
    made_by = {**response.made_by, "operator": "new_prompt", "level": spec["level"]}
    prompt = replace(prompt_from(spec, text), source=made_by["model"], parents=(content_id(spec),), made_by=made_by)
    if response.finish != "stop":
        return prompt, UNFINISHED[response.finish]
    if not faithful(spec, text):
        return prompt, "unfaithful"
    return prompt, "held-out split" if split(prompt) == "heldout" else None


def _cut_to_size(pools: dict[str, Pool], seed: int) -> list[Prompt]:
    """No more than wanted of each pool, chosen by a seeded hash; all pools' prompts in id order."""
    for pool in pools.values():
        surplus = sorted(pool.kept, key=lambda prompt_id: content_id(seed, prompt_id))[pool.wanted :]
        pool.drops["surplus"] += len(surplus)
        for prompt_id in surplus:
            del pool.kept[prompt_id]
        pool.drops = +pool.drops
    return sorted((p for pool in pools.values() for p in pool.kept.values()), key=lambda prompt: prompt.id)


def _answer(job: Job, teacher: Engine, prompts: list[Prompt]) -> tuple[list[Row], dict[str, int]]:
    """The teacher's right answers to the chosen share, and the drops by reason."""
    config: GenerateConfig = job.config
    chosen = {prompt.id: prompt for prompt in prompts if in_share(prompt, config.share)}
    sampling = Sampling(1, config.answer_temperature, config.top_p, config.max_new_tokens)
    rows, drops = [], Counter[str]()
    for response in answer_prompts(job, teacher, chosen.values(), sampling, config.chunk, config.model, "answers"):
        row, reason = _row(chosen[response.prompt_id], response, teacher)
        if reason is None:
            rows.append(row)
        else:
            drops[reason] += 1
    return rows, dict(sorted(drops.items()))


def in_share(prompt: Prompt, share: float) -> bool:
    """By hash of the id alone, so that the same prompt is in or out in every run."""
    return int(content_id("teacher answers", prompt.id), 16) % HASH_STEPS < share * HASH_STEPS


def _row(prompt: Prompt, response: Response, teacher: Engine) -> tuple[Row, str | None]:
    message = teacher.renderer.message(response.text)
    row = Row(
        (*prompt.messages, message), prompt.capability, prompt.language, prompt.source, prompt.tools,
        parents=(prompt.id,), made_by=response.made_by,
    )  # fmt: skip
    if response.finish != "stop":
        return row, UNFINISHED[response.finish]
    if undeclared(row.messages, row.tools):
        return row, "undeclared tool"
    if "tool_calls" not in message and "tool_calls" in parse_message(message["content"], USUAL):
        return row, "call of another template"
    verdict = grade(prompt.check, message).value if prompt.check else 1.0
    return row, "ungradable" if verdict is None else "wrong" if verdict < 1.0 else None
