"""A rank's process as the memory and start sections start it, with nothing of the benchmarks in it.

    PYTHONSAFEPATH=1 PYTHONPATH=CHECKOUT python benchmarks/rank.py memory none|otel_train STEPS EVERY
    ... import NAME ...
    ... init

It is run by path, and has otel_train from the checkout that PYTHONPATH names. It prints JSON.
"""

import sys
import time


def memory(what: str, steps: int, every: int) -> None:
    """Run a loop of steps, with telemetry or without, and print what the process holds at each `every`th step."""
    import torch  # noqa: PLC0415  # its cost is the base that others are added to

    loss = torch.ones(())
    seen = []
    if what == "none":
        for step in range(1, steps + 1):
            loss.add_(1.0)
            if step % every == 0:
                seen.append(held())
    else:
        import otel_train  # noqa: PLC0415  # as above

        meter = otel_train.MixingMeter(4, ["code", "prose"], {"code": 1.0, "prose": 1.0})
        for slot in range(4):
            meter.open(slot, ("code", "prose")[slot % 2])
        with otel_train.init(sources=[meter], close_timeout=0.0) as telemetry:
            for step in range(1, steps + 1):
                loss.add_(1.0)
                meter.pick(step % 4, tokens=64)
                telemetry.step(step, {"train/loss": 1.5})
                if step % every == 0:
                    seen.append(held())
    show(seen)


def held() -> dict[str, int]:
    """Return this process's memory by the kernel's own count, kB by name (Rss, Pss, Pss_Shmem, ...)."""
    with open("/proc/self/smaps_rollup") as lines:  # noqa: PTH123  # pathlib would be in the figures
        return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB\n")}


def imports(names: list[str]) -> None:
    """Import torch and then `names` (`package:attribute` where what an attribute pulls counts); print CPU seconds."""
    import torch  # noqa: F401, PLC0415  # what the others come on top of

    loaded = time.process_time()
    for name in names:
        package, _, attribute = name.partition(":")
        __import__(package)
        if attribute:
            getattr(sys.modules[package], attribute)
    show({"torch": loaded, "names": time.process_time() - loaded})


def init() -> None:
    """Begin a session, whose sidecar really starts; print its seconds, and the CPU's from torch to the first step."""
    import torch  # noqa: F401, PLC0415  # a rank has it

    loaded = time.process_time()
    import otel_train  # noqa: PLC0415  # only here

    begin = otel_train.init
    began = time.perf_counter()
    telemetry = begin()
    took = time.perf_counter() - began
    telemetry.step(1)
    stepped = time.process_time() - loaded
    arrived = telemetry.flush(30.0)
    telemetry.close()
    show({"init": took, "arrived": arrived, "first_step": stepped})


def show(value: object) -> None:
    """Print it for the parent."""
    import json  # noqa: PLC0415  # after the figures

    print(json.dumps(value))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "memory":
        memory(rest[0], int(rest[1]), int(rest[2]))
    elif command == "import":
        imports(rest)
    else:
        init()
