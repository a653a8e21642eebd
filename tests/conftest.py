"""What all tests share: quiet TensorFlow, and examples that are the same in every run."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Before the first test imports TensorFlow: its greetings are not test output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Workers of pytest-xdist share the processors: one thread each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# No deadline, because the first example of a test may pay for a compilation; no stored examples,
# because a run must not depend on those before it.
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("ci")
