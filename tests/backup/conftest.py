"""A fresh control database of each kind."""

from tests.control_databases import database, postgres_server, postgres_url

__all__ = ["database", "postgres_server", "postgres_url"]
