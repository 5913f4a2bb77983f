"""One suite a module: prompts with what grades an answer to them, and gold answers that prove the scorer.

A suite is a stage of `setup:` (`stage: eval.suites.math`). Its name there is its row in every table.
"""
