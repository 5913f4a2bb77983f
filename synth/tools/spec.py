"""What every pipeline of dialogs with tools can be told. Torch-free."""

from pydantic import Field

from synth.sources import SourceConfig


class ToolDialogsConfig(SourceConfig):
    """Pairs of messages, how good an end has to be, and whether more answers are sampled."""

    pairs: float = Field(0.2, ge=0, le=1)
    """Share of the dialogs of which one message is written twice; they make a pair where the second fails its check, or
    the teacher as judge prefers the first in both orders."""
    rival_temperature: float = Field(1.0, ge=0)
    """Of the sampling of that second message."""
    sampled: bool = False
    """Whether requests are also prompts to be sampled. The paper did no rejection sampling for tool use, which brought
    nothing there (P 4.3.5)."""
    least: float = Field(0.0, ge=0, le=10)
    """Grade, 1 to 10, that the teacher as judge must give a dialog's last answer; 0 asks for none."""
