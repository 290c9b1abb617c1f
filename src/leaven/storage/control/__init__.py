"""The control database: SQLite in a file by default, PostgreSQL beyond one machine."""
