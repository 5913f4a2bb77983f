"""What is finished is used, unless it is not what was asked for, not what was written, or forced."""

import subprocess
import sys

import pytest

from posttrain.artifacts import read_manifest


def made(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The stages that a command ran, as it told."""
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.split("▸ ")[1].split()[0] for line in result.stdout.splitlines() if "▸" in line]


def test_a_second_run_does_nothing_and_imports_nothing_heavy(finished) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*") if path.is_file()}
    result = finished.run()
    assert made(result) == []
    assert "nothing to do: all stages are finished" in result.stdout
    after = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} <= set(finished.root.glob("store/.work/*.lock"))


def test_the_parent_never_imports_torch(finished) -> None:
    code = (
        "import sys; from posttrain.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print([name for name in ('torch', 'transformers', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    for command in (["plan", "recipe.yaml"], ["run", "recipe.yaml"], ["status", "runs/small"]):
        result = subprocess.run(
            [sys.executable, "-c", code, *command], cwd=finished.folder, capture_output=True, text=True,
            env=finished.environment(),
        )  # fmt: skip
        assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr


def test_a_changed_value_reruns_only_what_depends_on_it(flow) -> None:
    assert made(flow.run()) == ["numbers", "total"]
    before = float((flow.root / "final" / "total.txt").read_text())
    assert made(flow.run("--set", "round.total.factor=2")) == ["total"]
    assert float((flow.root / "final" / "total.txt").read_text()) == pytest.approx(2 * before, abs=1e-11)
    assert made(flow.run()) == []
    assert float((flow.root / "final" / "total.txt").read_text()) == before
    assert made(flow.run("--set", "round.numbers.chunks=9")) == ["numbers", "total"]


def test_truncated_changed_and_forced_artifacts_are_made_again(flow) -> None:
    assert made(flow.run()) == ["numbers", "total"]
    rows = (flow.root / "round-1" / "numbers" / "rows.parquet").resolve()
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-1])
    result = flow.run()
    assert made(result) == ["numbers"]
    assert f"rows.parquet has {len(whole) - 1} bytes, not {len(whole)}" in result.stdout
    assert rows.read_bytes() == whole

    rows.write_bytes(whole[:-1] + b"X")
    assert made(flow.run()) == []
    result = flow.run("--verify")
    assert made(result) == ["numbers"]
    assert "was changed after it was made" in result.stdout
    assert rows.read_bytes() == whole

    assert made(flow.run("--force", "total")) == ["total"]
    assert sorted(path.name for path in flow.root.glob("store/round*")) == sorted(
        (flow.root / "round-1" / name).resolve().name for name in ("numbers", "total")
    )


def test_links_plan_and_manifest_say_what_was_made(finished) -> None:
    manifest = read_manifest(finished.root / "round-1" / "total")
    assert manifest is not None
    numbers = read_manifest(finished.root / "round-1" / "numbers")
    assert numbers is not None
    assert manifest.parents["rows"]["content"] == numbers.content
    assert manifest.parents["settings"]["source"] == str(finished.folder / "settings.txt")
    assert numbers.rows == {"rows": 24}
    assert numbers.measured["tokens"] == 24
    assert numbers.measured["memory"] > 2**20
    assert numbers.measured["device"] == "cpu"
    assert (finished.root / "final").resolve() == (finished.root / "round-1" / "total").resolve()
    assert "drawing 8 chunks" in (finished.root / "round-1" / "numbers" / "stage.log").read_text()


def test_status_tells_expected_and_measured(finished) -> None:
    result = finished.end(finished.start("status", "runs/small"))
    assert result.returncode == 0, result.stderr
    line = next(line for line in result.stdout.splitlines() if line.startswith("round-1/numbers"))
    assert "finished" in line
    assert "24 rows" in line
    assert "checkpoint runs/small/final" in result.stdout
