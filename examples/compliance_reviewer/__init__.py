"""A reviewer of contracts: each clause is judged in a run of its own, a human signs where it is risky, the archive is written once."""
