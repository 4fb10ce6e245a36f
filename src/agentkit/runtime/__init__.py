"""What an app embeds: the runtime, its worker, and the handles of runs."""
