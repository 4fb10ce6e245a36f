"""Durable execution: the journal of a run, the lane that commits it, and the recovery of what a dead process left behind."""
