"""What tests of agents and of adapters need: the conformance suite of each port, and a clock that tests move.

The suites are modules of their own, so that nothing here needs pytest: `agentkit.testing.runs`, `.queue`, `.values`, `.limits`, `.scaling`.
"""

from __future__ import annotations

import pkgutil
import sys

from agentkit.inmemory.inference import Delay
from agentkit.testing.clock import FakeClock
from agentkit.testing.models import ScriptedModel, ToolCall
from agentkit.testing.recording import Recording
from agentkit.testing.runtime import LocalRuntime, runtime

if "pytest" in sys.modules:  # without it nothing is asserted, and a process that a test starts need not load it
    import pytest

    # Without this a broken law prints a bare AssertionError, with it both sides. What is imported already asserts nothing.
    names = {f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)}
    pytest.register_assert_rewrite(*sorted(names - set(sys.modules)))

__all__ = ["Delay", "FakeClock", "LocalRuntime", "Recording", "ScriptedModel", "ToolCall", "runtime"]
