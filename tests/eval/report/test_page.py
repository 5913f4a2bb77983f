"""The page as a browser has it: whatever a row holds is text, nothing is loaded, and it looks like a report."""

import base64
import hashlib
import html.parser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from eval.report.compare import compare
from eval.report.page import percent, points, visible
from eval.report.run import report
from tests.eval.report.example import ANSWER, HOSTILE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 120


class Reader(html.parser.HTMLParser):
    """Every element with its attributes, and the texts of scripts and of everything else."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data


@pytest.fixture(scope="module", params=["report", "compare"])
def page(request: pytest.FixtureRequest, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    if request.param == "report":
        return report(finished, path)
    return compare(finished / "setup" / "evaluate-base", finished, path)


def test_hostile_rows_are_text(page: Path) -> None:
    read = Reader(page.read_text("utf-8"))
    assert HOSTILE.replace("\x00\x1b", "␀␛") in read.text
    assert ANSWER in read.text
    assert [tag for tag, _ in read.elements].count("script") == 1
    assert not {"img", "iframe", "object", "embed", "link", "form"} & {tag for tag, _ in read.elements}
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)


def test_nothing_is_loaded_and_only_our_script_may_run(page: Path) -> None:
    read = Reader(page.read_text("utf-8"))
    for _, attributes in read.elements:
        assert not {"src", "srcset", "data", "background"} & attributes.keys()
        assert (attributes.get("href") or "#").startswith("#")
    styles = re.findall(r"<style>(.*?)</style>", page.read_text("utf-8"), re.S)
    assert len(styles) == 1
    assert "url(" not in styles[0]
    assert "@import" not in styles[0]
    (policy,) = [a["content"] for tag, a in read.elements if tag == "meta" and "http-equiv" in a]
    digest = base64.b64encode(hashlib.sha256("".join(read.scripts).encode()).digest()).decode()
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src 'sha256-{digest}';" in policy


def test_every_inner_link_leads_somewhere(page: Path) -> None:
    read = Reader(page.read_text("utf-8"))
    ids = {attributes["id"] for _, attributes in read.elements if "id" in attributes}
    links = {str(attributes["href"])[1:] for tag, attributes in read.elements if tag == "a"}
    assert links <= ids


def test_numbers_and_control_characters() -> None:
    assert (percent(0.4591), points(0.046), points(-0.0004), points(-0.02)) == ("45.9", "+4.6", "−0.0", "−2.0")
    assert visible("a\tb\nc\x00\x7f\r") == "a\tb\nc␀␡␍"


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs a browser: apt-get install chromium")
    return found


def look(browser: str, folder: Path, *arguments: str) -> str:
    """Run a headless browser with a profile of its own and no network."""
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", *arguments,
    ]  # fmt: skip
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_in_a_browser_our_script_runs_and_no_other(page: Path, browser: str, tmp_path: Path) -> None:
    seen = Reader(look(browser, tmp_path, "--dump-dom", page.as_uri()))
    title = re.findall(r"<title>(.*?)</title>", page.read_text("utf-8"))[0]
    assert "owned" not in title
    assert title in seen.text
    sortable = [
        attributes["class"] for tag, attributes in seen.elements if "sortable" in (attributes.get("class") or "")
    ]
    assert sortable
    assert all(found == "sortable ready" for found in sortable)
    assert "img" not in [tag for tag, _ in seen.elements]


def test_a_screenshot_shows_a_report(page: Path, browser: str, tmp_path: Path) -> None:
    """It has the marks' green, the charts' blue and black text on white paper; nothing runs out at the right."""
    from PIL import Image

    shot = tmp_path / "shot.png"
    look(browser, tmp_path, "--window-size=900,1400", f"--screenshot={shot}", page.as_uri())
    image = Image.open(shot).convert("RGB")
    assert image.size == (900, 1400)
    colors = {color: number for number, color in image.getcolors(1 << 24)}
    paper = colors[(255, 255, 255)] / (900 * 1400)
    assert 0.6 < paper < 0.97
    assert colors.get((11, 122, 59), 0) > 20
    assert colors.get((42, 111, 219), 0) > 20
    assert colors.get((23, 25, 29), 0) > 200
    edge = image.crop((884, 0, 900, 1400)).getcolors()
    assert edge == [(16 * 1400, (255, 255, 255))]
