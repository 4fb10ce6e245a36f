"""A research orchestrator: specialists look into a question side by side, and enough of them make a paper."""
