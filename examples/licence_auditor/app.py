"""What a worker serves: ``agentkit worker examples.licence_auditor.app:runtime --concurrency 4``.

The store comes from ``AGENTKIT_STATE``, the trail from ``LICENCE_AUDIT_TRAIL``.
"""

from __future__ import annotations

import os

from agentkit import Runtime
from examples.licence_auditor.agents import AuditDistribution, AuditEnvironment, resources
from examples.licence_auditor.trail import Trail

runtime = Runtime.from_env(agents=[AuditEnvironment, AuditDistribution], lifespan=resources(Trail.from_env(os.environ)))
