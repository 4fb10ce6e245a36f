"""A licence auditor for a Python environment: one durable child run per installed distribution."""
