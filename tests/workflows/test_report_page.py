"""A report of every output opens in a browser without an error of a script, and shows what the files hold."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from hpcspin.api import open_trajectory
from hpcspin.config import load_config
from hpcspin.drawing.contents import describe, find_kind
from hpcspin.errors import HpcspinError
from hpcspin.parallel.world import World
from hpcspin.workflows import report
from hpcspin.workflows.label import label_file
from hpcspin.workflows.report import report_directory
from hpcspin.workflows.simulate import simulate_directory
from hpcspin.workflows.train import train_directory

Cli = Callable[..., subprocess.CompletedProcess[str]]
EVIL = "<img src=x onerror=alert(1)>"
"""Name of a reservoir that an unescaped page would run."""


@pytest.fixture(scope="module")
def made(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation, labels, and a training on them, of electrodes with an evil name."""
    root, world = tmp_path_factory.mktemp("made"), World()
    config, data = root / "c.yaml", root / "data"
    config.write_text(tiny.replace("{name: left,", f'{{name: "{EVIL}",'))
    for seed, name in ((3, "simulate"), (4, "other")):
        simulate_directory(load_config(config, ["dynamics.duration=1.6", f"dynamics.seed={seed}"]), root / name, world)
    for source, name in (("simulate", "a.h5"), ("other", "b.h5")):
        label_file(load_config(config), root / source, data / name, world)
    train_directory(load_config(config, ["training.validation=[b.h5]"]), [data], root / "train", world)
    return root


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    """Copies, to be changed."""
    return shutil.copytree(made, tmp_path / "outputs")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium of the distribution."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; it is of the extra test")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its chromedriver on this machine; apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def test_reports_open_in_a_browser_without_errors(outputs: Path, browser: Any) -> None:
    for name, kind in (("data", "label"), ("train", "train"), ("simulate", "simulate")):
        assert find_kind(outputs / name) == kind
        report_directory(outputs / name, World())
        browser.get((outputs / name / "report.html").as_uri())
        plots = browser.execute_script("return document.querySelectorAll('.plot').length")
        assert plots > 0
        assert browser.execute_script("return document.querySelectorAll('.plot .main-svg .trace').length") >= plots
        assert browser.get_log("browser") == []  # An alert would end the session as well.
    assert browser.execute_script("return document.querySelectorAll('img').length") == 0
    legend = browser.execute_script("return [...document.querySelectorAll('.legendtext')].map(one => one.textContent)")
    assert EVIL in legend


def test_the_film_in_the_browser_has_the_colours_of_the_spins(outputs: Path, browser: Any) -> None:
    with h5py.File(outputs / "simulate" / "trajectory.h5", "a") as file:
        file["spins"][:] = [0, 0, 1]
        file["spins"][-1, 0, 0] = [0, 0, -1]
    report_directory(outputs / "simulate", World())
    browser.get((outputs / "simulate" / "report.html").as_uri())
    colours = """
        const box = document.querySelector('.film'), canvas = box.querySelector('canvas');
        const [picked, slider] = [box.querySelector('select'), box.querySelector('input')];
        picked.value = 'spin along z'; slider.value = arguments[0]; slider.oninput();
        const at = (x, y) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data.slice(0, 3)];
        return [at(3, canvas.height - 3), at(canvas.width - 3, 3), box.querySelector('output').textContent];"""
    up, elsewhere, text = browser.execute_script(colours, 0)
    assert up == elsewhere
    assert text == "t = 0 ħ/t"
    down, elsewhere, text = browser.execute_script(colours, 4)
    assert elsewhere == up
    assert down[2] > 2 * down[0]
    assert up[0] > 2 * up[2]
    assert text == "t = 1.6 ħ/t"
    # To read so many pixels is slow, which the browser mentions.
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]


def test_a_report_is_whole_in_itself_and_names_become_no_tags(outputs: Path) -> None:
    report_directory(outputs / "simulate", World())
    text = (outputs / "simulate" / "report.html").read_text()
    assert EVIL not in text
    assert not re.search(r"<(script|img|link|iframe|style)[^>]*(src|href)=", text)
    for words in ("Provenance", "current out of", "Jobs that ended in order", "processor", "Film"):
        assert words in text
    for row in ("time step (ħ/t)</td><td>0.4", "exchange J (t)</td><td>3.8", "potential of right (t)</td><td>0.0"):
        assert row in text


def test_watching_ends_with_the_job(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the page of a job that is not done says so, and is loaded again."""
    run = outputs / "simulate"
    finished, partial = run / "trajectory.h5", run / "trajectory.h5.partial"
    finished.rename(partial)
    seen: list[str] = []

    def finish_later(seconds: float) -> None:
        seen.append((run / "report.html").read_text())
        partial.rename(finished)

    monkeypatch.setattr(report.time, "sleep", finish_later)
    report_directory(run, World(), watch=7)
    (first,) = seen
    last = (run / "report.html").read_text()
    assert 'content="7"' in first
    assert "not finished" in first
    assert 'http-equiv="refresh"' not in last
    assert "not finished" not in last


def test_watching_a_process_that_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is held while the first page is made, so that it cannot end before."""
    run = tmp_path / "run"
    words = ("simulate", config, "--output", run, "dynamics.field=classical", "dynamics.duration=120")
    with subprocess.Popen([sys.executable, "-m", "hpcspin", *map(str, words)]) as job:
        while not has_frames(run):
            assert job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGSTOP)
        seen: list[str] = []

        def let_it_end(seconds: float) -> None:
            seen.append((run / "report.html").read_text())
            job.send_signal(signal.SIGCONT)
            assert job.wait() == 0  # Without a time limit, which would sleep as well.

        monkeypatch.setattr(report.time, "sleep", let_it_end)
        report_directory(run, World(), watch=1)
    assert ["not finished" in page for page in seen] == [True]
    assert "not finished" not in (run / "report.html").read_text()


def has_frames(run: Path) -> bool:
    try:
        with open_trajectory(run) as frames:
            return len(frames) > 0
    except HpcspinError:
        return False


def test_a_directory_of_torque_has_a_page_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "torque.csv").write_text("field,voltage,angle\nexact,1.5,90\n")
    (tmp_path / "runs.csv").write_text("field,voltage,leaves,switching_time\nexact,0.9,True,12.5\n")
    for name in ("torque", "runs"):
        (tmp_path / f"{name}.png").write_bytes(b"")
    assert find_kind(tmp_path) == "torque"
    report_directory(tmp_path, World())
    text = (tmp_path / "report.html").read_text()
    assert "<td>1.5</td>" in text
    assert "<th>field</th><th>voltage V (t)</th><th>angle to the polarisation (degrees)</th>" in text
    assert "<th>time to switch (ħ/t)</th>" in text
    assert "run `hpcspin torque` again" in text
    (tmp_path / "numbers.json").write_text('{"critical_voltage": {"exact": 0.25, "learned": "|V| < 0.15"}}')
    report_directory(tmp_path, World())
    text = (tmp_path / "report.html").read_text()
    assert "critical voltage (t), exact</td><td>0.25</td>" in text
    assert text.index("<figure") < text.index("<th>field</th>")


def test_a_torque_that_was_killed_between_table_and_figure_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "torque.csv").write_text("field,voltage,angle\nexact,1.5,90\n")
    report_directory(tmp_path, World())
    text = (tmp_path / "report.html").read_text()
    assert "<td>1.5</td>" in text
    assert "run `hpcspin torque` again" in text


def test_the_table_of_a_sweep_has_words_with_units_for_its_quantities(tmp_path: Path) -> None:
    (tmp_path / "sweep.jsonl").write_text('{"directory": "run-0"}\n')
    columns = "electrons.on_site,electrons.reservoirs.left.width,training.batch,voltage,current_left,directory"
    (tmp_path / "sweep.csv").write_text(f"{columns}\n0.1,1.0,4,3.2,0.5,run-0\n")
    report_directory(tmp_path, World())
    head = "<th>energy of a site (t)</th><th>width of left (t)</th><th>training.batch</th><th>voltage eV (t)</th>"
    head += "<th>current out of left (t/ħ)</th><th>directory</th>"
    assert head in (tmp_path / "report.html").read_text()


def test_a_sweep_of_which_no_task_has_finished_says_how_far_its_runs_are(outputs: Path) -> None:
    """They have directories, and there is no table yet."""
    sweep, frames = outputs / "sweep", len(open_trajectory(outputs / "simulate"))
    for name in ("simulate", "train"):
        shutil.copytree(outputs / name, sweep / f"run-{name}")
    (sweep / "run-done").mkdir()
    (sweep / "run-done" / "result.json").write_text("{}")
    report_directory(sweep, World())
    text = (sweep / "report.html").read_text()
    assert "hpcspin sweep" in text
    assert f"run-simulate: not finished, {frames} frames so far; run the sweep again" in text
    assert "<td>run-done</td><td>finished</td>" in text
    assert re.search(r"<td>run-train</td><td>not finished, \d+ epochs so far</td>", text)


def test_a_label_above_its_tolerance_is_warned_of(outputs: Path) -> None:
    with h5py.File(outputs / "data" / "a.h5", "a") as file:
        file["error"][0] = 0.25
    report_directory(outputs / "data", World())
    assert "a.h5: an error estimate of 0.25 is above the tolerance" in (outputs / "data" / "report.html").read_text()


def test_what_is_no_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(HpcspinError, match="give the --output of a verb"):
        report_directory(tmp_path, World())
    with pytest.raises(HpcspinError, match=r"notes\.txt: .* not HDF5"):
        report_directory(tmp_path / "notes.txt", World())
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.parametrize("card", ["{}", '{"metrics": 5, "best_epoch": 1, "training": {"epochs": 2}}'])
def test_a_card_without_what_a_training_writes_is_refused(tmp_path: Path, card: str) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5, "seconds": 1}\n')
    (tmp_path / "model.json").write_text(card)
    with pytest.raises(HpcspinError, match="one of its files does not hold what `hpcspin train` writes"):
        describe(tmp_path, "train")


def test_the_last_of_a_hundred_rounds_is_shown(tmp_path: Path) -> None:
    for name in ("round-99", "round-100"):
        (tmp_path / name / "model").mkdir(parents=True)
    assert "round-100: Training" in describe(tmp_path, "learn")[0]


def test_films_and_plots_from_the_command_line(hpcspin: Cli, outputs: Path) -> None:
    run = outputs / "simulate"
    for arguments, name in (
        (("plot", run), "a.svg"),
        (("plot", run, run), "b.pdf"),
        (("draw", run, "--quantity", "density"), "c.gif"),
        (("draw", run), "d.png"),
    ):
        done = hpcspin(*arguments, "--output", outputs / name)
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
        assert (outputs / name).stat().st_size > 1000
        (outputs / name).write_text("mine")
        again = hpcspin(*arguments, "--output", outputs / name)
        assert again.returncode == 1
        assert f"{name}: exists already" in again.stderr
        assert (outputs / name).read_text() == "mine"
    assert hpcspin("draw", run, "--output", outputs / "d.png", "--force").returncode == 0
    assert (outputs / "d.png").stat().st_size > 1000
    refused = hpcspin("draw", run, "--quantity", "error", "--output", outputs / "e.gif")
    assert refused.returncode == 1
    assert "another quantity" in refused.stderr
    assert not (outputs / "e.gif").exists()
