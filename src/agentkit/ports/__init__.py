"""The doors to the outside: one port, one file. Adapters implement them; `agentkit.testing` holds their laws as tests."""
