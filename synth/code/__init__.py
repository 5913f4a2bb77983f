"""Code: what is mined of source files, and how a program in several languages is checked and run."""
