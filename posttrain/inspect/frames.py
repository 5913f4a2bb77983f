"""A run's rows, candidates and lengths as pandas DataFrames, and the plots of them. pandas and matplotlib come with
`pip install 'posttrain[notebooks]'`."""

from typing import TYPE_CHECKING, Any

from posttrain.errors import UserError
from posttrain.inspect.run import Run, imported

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

LENGTH_BINS = 30


def mixes(run: Run, by: str = "capability", stage: str = "mix") -> "pandas.DataFrame":
    """Rows of every mix by a column: one line a mix, one column a value. `stage` is the name the mixes have."""
    pandas = imported("pandas")
    parts = [run.frame("rows", one.id) for one in run.having("rows", stage)]
    rows = pandas.concat(parts)
    if by not in rows:
        raise UserError(f"{by!r} is no column of a mix; there are {', '.join(rows.columns)}")
    return rows.groupby(["stage", by]).size().unstack(fill_value=0)


def lengths(run: Run, stage: str = "mix") -> "pandas.DataFrame":
    """A line for each row of every stage of that id or name, rendered as in training.

    Columns: `stage`, `id`, `capability`, `language`, `source`, `tokens`, `trained_tokens`.
    """
    pandas = imported("pandas")
    records = []
    for one in run.having("rows", stage):
        for row in run.rows("rows", one.id):
            rendered = run.renderer.conversation(row.messages, row.tools)
            about = {name: getattr(row, name) for name in ("id", "capability", "language", "source")}
            trained = sum(value > 0 for value in rendered.mask)
            records.append({"stage": one.id, **about, "tokens": len(rendered.ids), "trained_tokens": trained})
    return pandas.DataFrame(records)


def candidate_table(run: Run, stage: str = "sample", scorer: str = "combined") -> "pandas.DataFrame":
    """A line for each prompt, the one with the least `lead` first.

    `best`, `mean` and `worst` are of `scorer` over its samples; `lead` is the distance of the best from the next
    different answer, 0 where all are the same; `answers` counts the different ones. Prompts without a score are left
    out. Raises UserError for a scorer the run does not have.
    """
    frame = run.frame("responses", stage)
    if scorer not in run.scorers:
        raise UserError(f"{scorer!r} is no scorer of this run; there are {', '.join(run.scorers) or 'none'}")
    scored = frame.dropna(subset=[scorer])
    grouped = scored.groupby("prompt_id")
    table = grouped[scorer].agg(["max", "min"]).rename(columns={"max": "best", "min": "worst"})
    total = (scored[scorer] * scored["count"]).groupby(scored.prompt_id).sum()
    table.insert(1, "mean", total / grouped["count"].sum())
    distinct = scored.drop_duplicates(["prompt_id", "text"]).groupby("prompt_id")[scorer]
    table["lead"] = distinct.agg(lambda values: values.nlargest(2).iloc[0] - values.nlargest(2).iloc[-1])
    table["answers"] = distinct.size()
    table.insert(0, "capability", grouped.capability.first())
    return table.sort_values("lead")


def plot_mix(run: Run, by: str = "capability", stage: str = "mix") -> "Axes":
    """Bars: the share of each value in every mix."""
    counts = mixes(run, by, stage)
    axes = _axes(len(counts))
    counts.div(counts.sum(axis=1), axis=0).plot.barh(stacked=True, ax=axes)
    axes.set(xlabel=f"share of rows by {by}", ylabel="", xlim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return axes


def plot_lengths(run: Run, stage: str = "mix", by: str = "capability") -> "Axes":
    """Histogram of the rows' tokens, stacked by a column; the longest row is named in the title."""
    table = lengths(run, stage)
    axes = _axes(4)
    groups = [(name, part.tokens) for name, part in table.groupby(by)]
    axes.hist([tokens for _, tokens in groups], LENGTH_BINS, stacked=True, label=[name for name, _ in groups])
    longest = table.loc[table.tokens.idxmax()]
    axes.set(xlabel="tokens of a row", ylabel="rows", title=f"longest {longest.tokens:,}, {longest.id[:8]}")
    axes.legend(frameon=False)
    return axes


def plot_scores(run: Run, stage: str = "sample", scorer: str = "combined") -> "Axes":
    """For each prompt, best against mean of its candidates: what selection gains over taking any of them."""
    table = candidate_table(run, stage, scorer)
    axes = _axes(4)
    for capability, part in table.groupby("capability"):
        axes.scatter(part["mean"], part["best"], s=8, label=capability)
    low, high = table["mean"].min(), table["best"].max()
    axes.plot([low, high], [low, high], linewidth=0.5, color="grey")
    axes.set(xlabel=f"mean {scorer} of the candidates", ylabel="best")
    axes.legend(frameon=False)
    return axes


def _axes(lines: int) -> Any:
    pyplot = imported("matplotlib.pyplot")
    return pyplot.subplots(figsize=(8, 1 + 0.7 * lines), layout="constrained")[1]
