"""A fresh control database of each kind, for every test of the registry."""

from tests.control_databases import database, postgres_server, postgres_url

__all__ = ["database", "postgres_server", "postgres_url"]
