"""The command line: one file a command group. It needs the extra `cli`."""
