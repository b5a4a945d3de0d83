"""Train two ranks under a launcher, once for each way to end them, in the middle of a step.

    launched_job.py LAUNCHER FOLDER WAY…

Each way has a folder of its own there. A rank writes down each step that it has made, and never closes its session:
what a launcher leaves undone shows. Somebody outside tells by a file when it may end.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import otel_train

RANKS, STEPS, LAST = 2, 20, 15
"""Number of ranks, steps of a job, and the one after which it goes wrong."""


class RankError(Exception):
    """The end of a rank by an exception of its own."""


def go_wrong(folder: Path, rank: int, terminated: Callable[[], bool] = bool) -> None:
    """End this rank in the way that its folder names, or go on.

    Args:
        folder: Of the job.
        rank: This one.
        terminated: Tells whether SIGTERM has come, where it does not end the process.
    """
    way = folder.name
    if way == "normal":
        return
    (folder / f"waits{rank}").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    if way == "terminated":
        while not terminated():
            time.sleep(0.02)
    elif rank == 1 and way == "raised":
        raise RankError
    elif rank == 1 and not (folder / "failed").exists():  # it may be started again
        (folder / "failed").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, *, closes: bool = False) -> None:
    """Train as one of the ranks, whose process group is there, and close the session where that is asked for."""
    rank = dist.get_rank()
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    telemetry = otel_train.init(ring_dir=folder / "rings")
    with telemetry if closes else nullcontext():
        for step in range(1, STEPS + 1):
            loss = model(torch.full((2, 4), 1.0 + rank)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if step == LAST + 1:
                go_wrong(folder, rank)
            optimizer.step()
            telemetry.step(step, {"train/loss": loss.detach()})
            note(folder, rank, step)


def note(folder: Path, rank: int, step: int) -> None:
    """Write down that a rank has made a step."""
    with (folder / f"rank{rank}.steps").open("a") as file:
        file.write(f"{step}\n")


def train_by_environment(folder: Path) -> None:
    """Train as the rank that the launcher's variables say."""
    if "RANK" not in os.environ:  # what a script does under mpirun
        os.environ |= {"RANK": os.environ["OMPI_COMM_WORLD_RANK"], "WORLD_SIZE": os.environ["OMPI_COMM_WORLD_SIZE"]}
    dist.init_process_group("gloo")
    train(folder)


def train_by_number(rank: int, folder: Path, *, closes: bool = False) -> None:
    """Train as the rank of a number, with no variable that says it."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    train(folder, closes=closes)


def spawn(folder: Path) -> None:
    """Have torch spawn the ranks."""
    import torch.multiprocessing as mp

    mp.spawn(train_by_number, (folder,), nprocs=RANKS)  # type: ignore[attr-defined, no-untyped-call]


def launch_from_notebook(folder: Path) -> None:
    """Have accelerate fork the ranks, as in a notebook."""
    from accelerate import notebook_launcher

    notebook_launcher(train_by_environment, (folder,), num_processes=RANKS, use_port=os.environ["MASTER_PORT"])


def fit_with_ray(folder: Path) -> None:
    """Have Ray Train start the ranks in workers of its own; each fit has the same name."""
    import ray.train.torch

    storage = tempfile.gettempdir()
    failures = ray.train.FailureConfig(max_failures=1 if folder.name == "retried" else 0)
    ray.train.torch.TorchTrainer(
        partial(train, folder),
        scaling_config=ray.train.ScalingConfig(num_workers=RANKS),
        run_config=ray.train.RunConfig(name="pilot", storage_path=storage, failure_config=failures),
    ).fit()


def begin_ray() -> None:
    """Begin a cluster of this machine alone."""
    import ray

    home = tempfile.gettempdir()  # a socket's path has 107 bytes at most
    ray.init(num_cpus=RANKS, include_dashboard=False, object_store_memory=80 << 20, _temp_dir=home, log_to_driver=False)


def train_in_pool(rank: int, folder: Path) -> None:
    """Train as a rank of a number in a process that goes on with other jobs, so that its end comes too late."""
    try:
        train_by_number(rank, folder, closes=True)
    finally:
        dist.destroy_process_group()


def submit_to_dask(folder: Path) -> None:
    """Have two workers of dask train, each in a thread."""
    import dask
    import distributed

    dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with distributed.LocalCluster(n_workers=RANKS, threads_per_worker=1, dashboard_address=None) as cluster:
        client = distributed.Client(cluster)
        workers = list(client.scheduler_info()["workers"])
        tasks = [client.submit(train_in_pool, rank, folder, workers=[workers[rank]]) for rank in range(RANKS)]
        client.gather(tasks)


def distribute_by_spark(folder: Path) -> None:
    """Have Spark's TorchDistributor run torchrun in its tasks."""
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master(f"local[{RANKS}]").config("spark.ui.enabled", "false").getOrCreate()
    assert spark is not None
    TorchDistributor(num_processes=RANKS, local_mode=False, use_gpu=False).run(train_by_environment, folder)


def fit_with_lightning(folder: Path) -> None:
    """Have Lightning start the script again for the other rank."""
    import lightning
    from torch.utils.data import DataLoader, TensorDataset

    from otel_train.integrations.lightning import OtelTrainCallback

    class Model(lightning.LightningModule):  # type: ignore[misc]  # its types are not there
        """The model, as Lightning has it."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 1)

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            """Return the loss."""
            if index == LAST:
                go_wrong(folder, self.global_rank, lambda: self.trainer.received_sigterm)
            loss: torch.Tensor = self.linear(batch[0]).square().mean()
            return loss

        def on_train_batch_end(self, *_: object) -> None:
            """Write down that the step is made."""
            note(folder, self.global_rank, self.global_step)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            """Return the optimizer."""
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = lightning.Trainer(
        accelerator="cpu", devices=RANKS, strategy="ddp", max_steps=STEPS, logger=False, enable_checkpointing=False,
        callbacks=[OtelTrainCallback(ring_dir=folder / "rings")], enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Model(), DataLoader(TensorDataset(torch.randn(4 * STEPS, 4)), 2))


LAUNCHERS: dict[str, Callable[[Path], None]] = {
    "torchrun": train_by_environment,
    "mpirun": train_by_environment,
    "spawn": spawn,
    "notebook": launch_from_notebook,
    "ray": fit_with_ray,
    "lightning": fit_with_lightning,
    "dask": submit_to_dask,
    "spark": distribute_by_spark,
}

if __name__ == "__main__":
    launcher, root, *ways = sys.argv[1:]
    if launcher == "ray":
        begin_ray()
    for way in ways:
        try:
            LAUNCHERS[launcher](Path(root, way))
        except Exception as error:
            if way == ways[-1]:
                raise
            print(f"{way}: {error!r}", flush=True)  # what follows is another job
