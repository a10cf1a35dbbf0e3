"""PostgreSQL: the log and everything else in a server that many processes may share. `database` is its `Database`."""
