"""Eight languages: what a user says in each, and whether two texts match in language, script and numbers."""
