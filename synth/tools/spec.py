"""What every pipeline of dialogs with tools can be told. Torch-free."""

from pydantic import Field

from synth.sources import SourceConfig


class ToolDialogsConfig(SourceConfig):
    """Pairs of messages, and how good an end has to be."""

    pairs: float = Field(0.2, ge=0, le=1)
    """Share of the dialogs of which one message is written twice; they make a pair where the second fails its check, or
    the teacher as judge prefers the first in both orders."""
    rival_temperature: float = Field(1.0, ge=0)
    """Of the sampling of that second message."""
    least: float = Field(0.0, ge=0, le=10)
    """Grade, 1 to 10, that the teacher as judge must give a dialog's last answer; 0 asks for none."""
