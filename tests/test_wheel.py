"""The built wheel, installed away from the checkout, finds its recipes and plans the quick start."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "posttrain", "reward", "synth", "eval", "recipes"]


def run(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder of an older state gets into it."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", str(out), str(copy)], cwd=out)
    return next(out.glob("posttrain-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own that holds the wheel, and sees the dependencies of this one but not the checkout."""
    prefix = tmp_path_factory.mktemp("installed")
    run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], cwd=prefix)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(prefix), "platbase": str(prefix)}))
    pip = [sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python")]
    run([*pip, "install", "--quiet", "--no-deps", str(wheel)], cwd=prefix)
    dependencies = sysconfig.get_path("purelib")
    # As a plain path entry: .pth files of this environment, an editable install among them, are not read there.
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    return prefix / "bin"


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_holds_the_packages_and_their_data_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"posttrain", "reward", "synth", "eval", "recipes"}
    for path in [*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "synth").rglob("*.jinja"), *pages(), *shipped_models()]:
        assert str(path.relative_to(ROOT)) in names


def pages() -> list[Path]:
    return list((ROOT / "eval" / "report" / "templates").iterdir())


def shipped_models() -> list[Path]:
    models = [ROOT / "posttrain" / "tiny" / name for name in ("base", "teacher")]
    return [folder / file for folder in models for file in ("model.safetensors", "tokenizer.json", "config.json")]


def test_lists_its_recipes(installed: Path, tmp_path: Path) -> None:
    listed = run([str(installed / "posttrain"), "recipes"], cwd=tmp_path, env=clean_environment())
    for name in ("quickstart", "sft", "dpo", "llama-3.1-8b"):
        assert name in listed


def test_plans_the_quick_start(installed: Path, tmp_path: Path) -> None:
    shown = run([str(installed / "posttrain"), "plan", "quickstart"], cwd=tmp_path, env=clean_environment())
    assert "round 2" in shown
    where = "import posttrain; print(posttrain.__file__)"
    found = run([str(installed / "python"), "-c", where], cwd=tmp_path, env=clean_environment())
    assert Path(found.strip()).is_relative_to(installed.parent)
