"""Post-training of language models in rounds, as Llama 3 does it."""
