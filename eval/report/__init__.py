"""The report of a run, and the comparison of two: one self-contained HTML file, and the same essentials in a terminal.

`posttrain report` and `posttrain compare` find the modules `run` and `compare` by their dotted names.
"""
