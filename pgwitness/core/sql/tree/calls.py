"""Functions that give a text a meaning which their statement does not show: they run it, or read what it names."""

from __future__ import annotations

import re
from collections.abc import Sequence

RUN_TEXT = {
    **dict.fromkeys(("query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "ts_stat", "ts_rewrite"), 0),
    **dict.fromkeys(("dblink", "dblink_exec", "dblink_open", "dblink_send_query", "crosstab"), None),
    **dict.fromkeys(("cron.schedule", "cron.schedule_in_database", "pg_background_launch", "connectby"), None),
}
"""Functions that run a text as SQL: the place of that argument, None where any may be it."""
ANY_TEXT = frozenset({"dblink", "dblink_exec", "dblink_open", "dblink_send_query"})
"""Those of them of which a text that is put together may be SQL, whichever argument it is."""
READ_TABLE = frozenset({"table_to_xml", "table_to_xml_and_xmlschema"})
"""Functions that read all of the table that their first argument names."""
READ_MANY = frozenset(
    f"{what}_to_xml{how}" for what in ("schema", "database", "cursor") for how in ("", "_and_xmlschema")
)
"""Functions that read what their arguments do not show: many tables, or a cursor."""
STRICT = frozenset(
    {
        *("pg_cancel_backend", "pg_terminate_backend", "pg_read_file", "pg_read_binary_file", "pg_ls_dir"),
        *("pg_stat_file", "lo_import", "lo_export", "pg_create_physical_replication_slot"),
        *("pg_create_logical_replication_slot", "pg_drop_replication_slot"),
    }
)
"""Functions of the server that do nothing when an argument is NULL."""
TOGETHER = "it runs text that is put together as it runs"
SPACED = re.compile(r"[\s\"'/(]")
"""What stands between the words of any statement."""
NAME = re.compile(r'(?:[\w$]+|"[^"]+")(?:\.(?:[\w$]+|"[^"]+"))?')


def runs_text(functions: Sequence[str]) -> bool:
    """Say whether one of these functions gives a text a meaning that its statement does not show."""
    last = (name.rpartition(".")[2] for name in functions)
    found = (*functions, *last)
    return any(name == "set_config" or name in RUN_TEXT or name in READ_TABLE or name in READ_MANY for name in found)
