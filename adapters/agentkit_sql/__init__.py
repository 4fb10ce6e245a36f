"""The ports on SQL databases."""
