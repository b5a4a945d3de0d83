"""Build the native core, which is optional: without a compiler its twins in Python run. pyproject.toml has the rest."""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("otel_train/native")  # relative, as setuptools wants it
free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

core = Extension(
    "otel_train.native._core",
    sorted(map(str, NATIVE.glob("*.c"))),
    depends=sorted(map(str, NATIVE.glob("*.h"))),
    define_macros=[("Py_LIMITED_API", "0x030B0000")],
    # A product and a sum in one instruction would round once where the twins round twice.
    extra_compile_args=["-std=gnu11", "-O2", "-ffp-contract=off", "-fvisibility=hidden"],
    py_limited_api=True,
    optional=True,
)
setup(
    ext_modules=[] if free_threaded else [core],
    options={} if free_threaded else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
