"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# These machines are noisy: an example that takes long says nothing.
settings.register_profile("project", deadline=None)
settings.load_profile("project")
