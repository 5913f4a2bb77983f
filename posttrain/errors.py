"""The ways a command can end other than well, one class for each exit code.

Everything a user can cause or mend is raised as one of these; the command line prints the message as one sentence
without a traceback. Any other exception is a defect of ours and is shown as a failed stage.
"""


class PosttrainError(Exception):
    """Base class: `exit_code` is what the process ends with."""

    exit_code = 1


class UserError(PosttrainError):
    """The recipe, the data or the machine is not as needed: says what was got, where, and what to do next."""

    exit_code = 2


class RecipeError(UserError):
    """All faults of a recipe at once; `problems` holds one line each (`file:line path: what`)."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        count = "1 check failed" if len(problems) == 1 else f"{len(problems)} checks failed"
        super().__init__("\n  ".join([count, *problems]))


class StageFailed(PosttrainError):
    """A stage died; the message ends with the path of its log."""

    exit_code = 1


class WaitingForPerson(PosttrainError):
    """The run needs something only a person can give; the same command goes on after it."""

    exit_code = 3


class StoppedByGate(PosttrainError):
    """A gate with `on_fail: stop` did not hold."""

    exit_code = 4


class Interrupted(PosttrainError):
    """SIGINT or SIGTERM; everything finished is kept and the same command goes on."""

    exit_code = 75
