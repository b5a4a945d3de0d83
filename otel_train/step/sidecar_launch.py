"""Start the sidecar's process: detached from the rank, without the job's modules, directory and warnings."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from otel_train.descriptors import open_private

PACKAGE_ROOT = str(Path(__file__).absolute().parents[2])
"""Directory or zip file that this process has otel_train from."""
_BEGIN, _PATHS = "_OTEL_TRAIN_BEGIN", "_OTEL_TRAIN_PATHS"
"""Variables that hand over what to run first, and the root and the directories of installed packages, one a line."""
MODULE = "otel_train.sidecar"
_BOOTSTRAP = f"""\
import os, sys
try:
    if os.fork(): os._exit(0)
except OSError: pass
from importlib import machinery, util
root, *installed = os.environ.pop({_PATHS!r}).split("\\n")
spec = machinery.PathFinder.find_spec("otel_train", [root])
package = sys.modules["otel_train"] = util.module_from_spec(spec)
spec.loader.exec_module(package)
from otel_train.sidecar.__main__ import main
del sys.argv[1]
main(installed)
"""
"""The process that a rank starts ends at once, and its child goes on: what ends a rank with all its children (Ray does)
leaves it alone. Only the package comes from where the rank has it; nothing else of the rank's path is searched."""
_LEFT_OUT = ("PYTHONPATH", "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONPROFILEIMPORTTIME")
"""Variables that would run the job's modules in the sidecar, make its warnings errors, or have it wait for a person."""
_CARRIED = ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME")
"""Variables that each rank's ring carries for itself."""
_FILES = (
    *(f"OTEL_EXPORTER_OTLP_{name}" for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")),
    *(f"OTEL_EXPORTER_OTLP_METRICS_{name}" for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")),
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
"""Variables that name files, which may be relative to the job's directory."""
_RANKS_SIGNALS = signal.SIGUSR1, signal.SIGUSR2
"""Signals that Slurm sends to a whole step (`--signal`): a sidecar inherits them blocked until it ignores them."""


def launch(arguments: Sequence[str], log: Path, connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start a sidecar, and return the process that starts it, which ends at once.

    Args:
        arguments: The sidecar's.
        log: The file that its output is appended to.
        connection: Its end of the connection with its owner; its standard input.

    Raises:
        OSError: It can't be started.
    """
    descriptor = open_private(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _RANKS_SIGNALS)
    try:
        return subprocess.Popen(
            [_executable(), "-P", "-c", f"import os; exec(os.environ.pop({_BEGIN!r}))", MODULE, *arguments],
            stdin=connection.fileno(),
            stdout=descriptor,
            stderr=descriptor,
            cwd="/",  # the job's may be unmounted or removed before it ends
            env=_environment(),
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(descriptor)


def _executable() -> str:
    if not sys.executable:
        raise FileNotFoundError("this process does not know its Python interpreter (sys.executable is empty)")
    if getattr(sys, "frozen", False):  # the job itself, in one file: to run it would begin another job
        raise FileNotFoundError(f"{sys.executable} is not a Python interpreter; set OTEL_TRAIN_SIDECAR=external")
    return os.path.abspath(sys.executable)  # noqa: PTH100  # links stay: a virtual environment's interpreter is one


def _environment() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT + _CARRIED}
    for name in _FILES:
        if environment.get(name):
            with contextlib.suppress(OSError):  # the working directory is gone
                environment[name] = os.path.abspath(environment[name])  # noqa: PTH100  # its links may change
    # gRPC would write a line of its own at each failed try; ours says once what is the matter.
    environment.setdefault("GRPC_VERBOSITY", "NONE")
    environment |= {_BEGIN: _BOOTSTRAP, _PATHS: "\n".join([PACKAGE_ROOT, *_installed()])}
    return environment


def _installed() -> Iterator[str]:
    """Yield the directories of this process's search path that packages were installed into.

    The sidecar searches them after its own, where the libraries that it needs are not in these: in a pex file each
    package has a directory of its own.
    """
    for path in dict.fromkeys(sys.path):
        with contextlib.suppress(OSError), os.scandir(path or ".") as entries:
            if any(entry.name.endswith(".dist-info") for entry in entries):
                yield os.path.abspath(path)  # noqa: PTH100
