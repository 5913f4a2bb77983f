"""The teacher at work: prompts and answers per capability, and the procedural world of the quick start."""
