"""Dialogs in which the model is answered: its calls are run, a user speaks again. All that wait are asked at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from posttrain.data.rows import Message, Prompt, Response, content_id
from posttrain.engines.answers import answer_prompts
from posttrain.engines.protocol import Engine, Sampling
from posttrain.stages import Job

Reply = Callable[[list[Message]], list[Message]]
"""What the model is told after its message, the last of those given (results of its calls, a user's next turn);
nothing ends the dialog."""


@dataclass
class Dialog:
    """One sample of a prompt, under way or at its end. `said` is all that came after the prompt."""

    prompt: Prompt
    first: Response
    reply: Reply
    said: list[Message] = field(default_factory=list)
    written: int = 0
    """Messages of the model since somebody who is no tool spoke."""
    tokens: int = 0
    logprob: float | None = 0.0
    finish: str = "stop"
    given_up: str = ""
    """Why it did not come to its end: `calls`, more messages than it may need, or how its last answer finished."""
    text: str = ""
    """The model's last message as it wrote it; empty where there was no room for one."""
    open: bool = True

    @property
    def asked(self) -> Prompt:
        """What the model is to answer next; the id tells sample and step."""
        key = content_id(self.prompt.id, self.first.index, len(self.said))
        return replace(self.prompt, messages=(*self.prompt.messages, *self.said), id=key)

    @property
    def steps(self) -> tuple[Message, ...]:
        """What was said before the model's last message."""
        return tuple(self.said[:-1] if self.said[-1]["role"] == "assistant" else self.said)

    def take(self, response: Response, message: Message, most: int) -> None:
        """Go on with what the model wrote. One that needs more than `most` messages is given up, as cut."""
        asked_before = bool(self.said)
        self.tokens, self.written, self.finish = self.tokens + response.tokens, self.written + 1, response.finish
        self.given_up = "" if response.finish == "stop" else response.finish
        together = self.logprob is not None and response.logprob is not None
        self.logprob = (self.logprob or 0.0) + (response.logprob or 0.0) if together else None
        if response.finish in ("too_long", "refused") and asked_before:
            self.finish, self.text, self.open = "length", "", False
            return
        self.text = response.text
        self.said.append(message)
        told = self.reply([*self.prompt.messages, *self.said]) if response.finish == "stop" else []
        if told and self.written >= most and told[-1]["role"] == "tool":
            self.finish, self.given_up, told = "length", "calls", []
        self.said += told
        self.open = bool(told)
        if told and told[-1]["role"] != "tool":
            self.written = 0


def hold(
    job: Job,
    engine: Engine,
    prompts: Sequence[Prompt],
    reply_of: Callable[[Prompt], Reply],
    sampling: Sampling,
    *,
    chunk: int,
    model: str,
    journal: str,
    most: int,
) -> list[Dialog]:
    """`sampling.n` dialogs of each prompt, in order of prompt id and sample; every one has a `Reply` of its own.

    The first messages are sampled together, as `answer_prompts` does under `journal`; each later step has a journal of
    its own, so a stage that was killed asks for no message twice. What was cut or refused ends its dialog; so do `most`
    messages of the model without a word from anybody but its tools.
    """
    of_id = {prompt.id: prompt for prompt in prompts}
    firsts = answer_prompts(job, engine, prompts, sampling, chunk, model, journal)
    dialogs = [Dialog(of_id[first.prompt_id], first, reply_of(of_id[first.prompt_id])) for first in firsts]
    for dialog in dialogs:
        dialog.take(dialog.first, engine.renderer.message(dialog.first.text), most)
    one, step = replace(sampling, n=1), 1
    while waiting := {dialog.asked.id: dialog for dialog in dialogs if dialog.open}:
        asked = [dialog.asked for dialog in waiting.values()]
        for response in answer_prompts(job, engine, asked, one, chunk, model, f"{journal}-step-{step}"):
            waiting[response.prompt_id].take(response, engine.renderer.message(response.text), most)
        step += 1
    return dialogs
