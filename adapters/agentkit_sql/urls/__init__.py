"""The doors of the entry points: one file a port, for every kind of database that `agentkit_sql.sql` lists."""
