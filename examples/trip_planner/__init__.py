"""A trip planner: a model writes a plan, the run carries it out, takes back what failed, and plans anew."""
