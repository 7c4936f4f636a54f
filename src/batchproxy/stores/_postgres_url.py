"""What the URL of a PostgreSQL server says, without its password where it is not right."""

from __future__ import annotations

import re
from typing import Any

from .._forks import unforked


def options_of(server: str) -> dict[str, Any]:
    """What libpq makes of it."""
    try:
        with unforked():
            from psycopg import ProgrammingError
            from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        raise ImportError(
            "PostgresStore needs psycopg: pip install 'batchproxy[postgres]'"
        ) from error
    try:
        options = dict(conninfo_to_dict(server))
        ports = str(options.get("port", "")).split(",")
        if all(re.fullmatch("[0-9]*", port, re.ASCII) for port in ports) and not any(
            "@" in str(options.get(name, "")) for name in ("host", "hostaddr", "dbname")
        ):
            return options
    except (ProgrammingError, UnicodeError):
        pass
    # Without what libpq says, which may have a part of the password, nor an exception that has it.
    raise ValueError(
        "PostgresStore takes a URL such as 'postgresql://user@localhost/database', with options of "
        "libpq; its host, port or an option is none, or / ? # or @ are not percent-encoded in it"
    )


def place_of(options: dict[str, Any]) -> str:
    """Which server and database, and nothing else that is known of them."""
    from psycopg.pq import Conninfo

    known = {
        option.keyword.decode(): option.val.decode()
        for option in Conninfo.get_defaults()
        if option.val is not None
    }
    known |= options
    where = known.get("host") or known.get("hostaddr") or known.get("service") or "localhost"
    return f"{where}:{known.get('port')}/{known.get('dbname') or known.get('user')}"
