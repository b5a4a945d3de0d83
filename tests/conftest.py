"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import Phase, settings

# Before torch is imported: small tensors are slower on several threads, and many times so beside other processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# These machines are noisy: an example that takes long says nothing.
settings.register_profile("project", deadline=None)
# For the list of mutants it is enough that an example fails; nobody reads the smallest one.
settings.register_profile("unshrunk", deadline=None, phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "project"))
