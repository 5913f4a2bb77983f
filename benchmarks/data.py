"""Rows on their way to training: rendering with masks, near-duplicate removal, reading and mixing a million rows.

    python benchmarks/data.py --write           # needs pip install datasketch

Each part has a module of its own that says what is compared with what: data_rendering.py, data_duplicates.py,
data_mixing.py. CPU seconds compare on a machine that is shared with other work.
"""

from functools import partial

import harness


def main() -> None:
    parser = harness.parser(__doc__, seed=17)
    parser.add_argument("--rendered", type=int, default=400, help="conversations of each kind that are rendered")
    parser.add_argument("--deduplicated", type=int, default=20_000, help="texts among which near duplicates are found")
    parser.add_argument("--mixed", type=int, default=1_000_000, help="conversations that are read and mixed")
    options = parser.parse_args()

    import data_duplicates
    import data_mixing
    import data_rendering

    parts = {
        "Rendering with masks": partial(data_rendering.section, options.rendered),
        "Near-duplicate removal": partial(data_duplicates.section, options.deduplicated),
        "Reading and mixing": partial(data_mixing.section, options.mixed),
    }
    lines: list[str] = []
    for title, section in parts.items():
        print(f"{title} …", flush=True)
        lines += ["", f"## {title}", "", *section(options.seed)]
    about = f"{options.rendered:,}, {options.deduplicated:,} and {options.mixed:,} rows, one thread"
    harness.report("Rows", lines[1:], options, about, "transformers", "datasets", "rensa", "datasketch")


if __name__ == "__main__":
    main()
