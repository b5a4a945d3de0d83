"""The page docs/getting-started.md, done as it says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_train.bridge.wandb_file import read_run
from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.matrix
PAGE = (Path(__file__).parents[2] / "docs" / "getting-started.md").read_text(encoding="utf-8")


class Reader:
    """Somebody who does what the page says, in a folder and with rings of their own.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        for name, text in re.findall(r'```python title="(\S+)".*?\n(.*?)```', PAGE, re.DOTALL):
            (folder / name).write_text(text)

    def block(self, beginning: str) -> str:
        """Return the block of commands that begins so, with this reader's own port."""
        blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
        (block,) = [block for block in blocks if block.startswith(beginning)]
        return str(block).replace("127.0.0.1:4317", self.address)

    def run(self, commands: str, rings: str) -> subprocess.CompletedProcess[str]:
        """Run commands as a shell does, and have those which look at rings look at these."""
        commands = re.sub(r"(otel-train (?:top|doctor|dump))\b", rf"\1 {rings}", commands)
        environment = clean_environment(OTEL_TRAIN_RING_DIR=rings, COLUMNS="120")
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        command = ["bash", "-e", "-o", "pipefail", "-c", commands]
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


@pytest.fixture
def bridge(reader: Reader) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "otel_train", *reader.block("otel-train bridge").split("&")[0].split()[1:]]
    with (reader.folder / "bridge.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--listen", reader.address], cwd=reader.folder, env=clean_environment(), stderr=log
        )
    try:
        wait_until(lambda: b"listens" in (reader.folder / "bridge.log").read_bytes(), log=reader.folder / "bridge.log")
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_first_loop_runs(reader: Reader) -> None:
    """The loop that the page begins with runs, and logs to wandb offline."""
    assert reader.run(reader.block("torchrun --nproc-per-node 2 before.py"), "rings").returncode == 0
    assert list(reader.folder.glob("wandb/offline-run-*/*.wandb"))


def test_rings_show_clusters_loss(reader: Reader) -> None:
    """Without a receiver the commands show the job, and the cluster's loss is the mean of the ranks'."""

    def losses_of(csv: str) -> dict[int, list[float]]:
        head, *lines = csv.splitlines()
        step = head.split(",").index("step")
        losses: dict[int, list[float]] = {}
        for fields in (line.split(",") for line in lines):
            losses.setdefault(int(fields[step]), []).append(float(fields[-1]))
        return losses

    seen = reader.run(reader.block("torchrun --nproc-per-node 2 train.py"), "rings")
    assert seen.returncode == 0, seen.stderr
    assert "step 50" in seen.stdout
    assert "nothing is wrong" in seen.stdout
    dump = reader.block("otel-train dump")
    cluster = losses_of(reader.run(dump, "rings").stdout)
    ranks = losses_of(reader.run(dump.replace("cluster", "rank"), "rings").stdout)
    assert [len(ranks[step]) for step in range(1, 51)] == [2] * 50
    assert cluster == {step: [pytest.approx(sum(losses) / 2)] for step, losses in ranks.items()}


def test_every_step_reaches_wandb(reader: Reader, bridge: subprocess.Popen[bytes]) -> None:
    """The job that is sent to the bridge is a row a step under the run's name, which the report and sync find."""
    job = reader.block("otel-train bridge").partition("\n")[2]
    assert reader.run(job, "rings").returncode == 0
    wait_until(lambda: len(read_run(reader.folder / "bridge", "first-run")) == 50, log=reader.folder / "bridge.log")
    rows = [row.values for row in read_run(reader.folder / "bridge", "first-run")]
    assert [row["train/step"] for row in rows] == list(range(1, 51))
    named = ("train/loss", "train/step_duration", "train/data_wait", "train/ranks")
    assert [key for key in named if any(key not in row for row in rows)] == []
    (report,) = re.findall(r"`(otel-train report .*?)`", PAGE)[:1]
    assert reader.run(report, "rings").returncode == 0
    assert (reader.folder / "report.html").is_file()
    bridge.terminate()
    bridge.wait(20)
    (upload,) = re.findall(r"^otel-train sync \S+", reader.block("kill %1"), re.MULTILINE)
    assert "first-run" in reader.run(f"{upload} --dry-run", "rings").stdout


def test_doctor_sees_wrong_mix(reader: Reader) -> None:
    """The loader that picks evenly is found out, as the page shows."""
    seen = reader.run(reader.block("torchrun --nproc-per-node 1 mixed.py"), "rings")
    assert seen.returncode == 1
    assert re.findall(r"^WARNING mix drift.*", PAGE, re.MULTILINE)[0] in seen.stdout
