"""Datasette with a database in memory, as a factory."""

from typing import Any

from datasette.app import Datasette


def make() -> Any:
    return Datasette(memory=True, settings={"num_sql_threads": 1}).app()
