"""What the examples share: their command line, models that need no server, and how a run looks on a terminal."""
