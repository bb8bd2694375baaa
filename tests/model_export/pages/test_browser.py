"""The claim that a page opens without a network, put to a real browser that has none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from model_export.pages import Chart, Page, Section, write_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
SECONDS = 60  # a browser starts in one, on a machine with other things to do in ten


def browse(path: Path, profile: Path) -> tuple[str, list[str]]:
    """What the browser made of the file, and what it wrote to its console."""
    words = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    words += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", path.as_uri()]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=SECONDS)
    return shown.stdout, [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]


def write(path: Path) -> None:
    chart = Chart(caption="A caption", description="d", paint=lambda figure: figure.subplots().plot([1, 2], label="x"))
    write_page(path, Page(title="漢字 & <b>", lead=("lead",), sections=(Section("Heading", (chart, chart)),)))


def test_a_page_opens_without_a_network_and_without_a_complaint(tmp_path: Path) -> None:
    write(tmp_path / "page.html")
    shown, complaints = browse(tmp_path / "page.html", tmp_path / "profile")
    assert complaints == []
    assert "<h1>漢字 &amp; &lt;b&gt;</h1>" in shown
    assert shown.count("<svg") == 2


def test_what_would_load_or_run_something_is_refused_by_the_page_itself(tmp_path: Path) -> None:
    """If anything ever slipped through the escaping, and that complaints of a browser are seen here."""
    path = tmp_path / "page.html"
    write(path)
    slipped = '<main><img src="https://example.org/x.png"><script>document.title = "run"</script>'
    path.write_text(path.read_text("utf-8").replace("<main>", slipped), "utf-8")
    shown, complaints = browse(path, tmp_path / "profile")
    assert len(complaints) == 2
    assert all("Content Security Policy" in complaint for complaint in complaints)
    assert "<title>run" not in shown
