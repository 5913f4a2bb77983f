"""The plan's answers to a spec, with the tiny base's tokenizer."""

from pathlib import Path

import posttrain
from posttrain.stages import External, Size
from tests.synth.conftest import Files

TINY = Path(posttrain.__file__).parent / "tiny"


class Shelf(Files):
    def model(self, name, served=False):
        return External(str(TINY / "base"), "f", Size()) if name == "base" else super().model(name, served)

    def data(self, path):
        return External(str(self.folder / path), "f", Size())
