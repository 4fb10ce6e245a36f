"""Programs that people would really run, each with a README and tests of its own."""
