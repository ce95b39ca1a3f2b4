"""What gives no row by its literals alone is told as that, and nothing that may read or do something is."""

from __future__ import annotations

import pytest

from collectors.log.probes import gives_nothing


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM customers WHERE 1=0",
        "select c.email from customers c where 1 = 0;",
        "SELECT * FROM (SELECT id, email FROM customers) SPARK_GEN_SUBQ_0 WHERE 1=0",
        "SELECT *\nFROM customers\nWHERE 0 = 1 LIMIT 1",
        "SELECT * FROM customers WHERE false",
        "SELECT * FROM customers WHERE 1 <> 1 ;\n",
    ],
)
def test_a_probe_gives_nothing(text: str) -> None:
    """As programs ask which columns there are."""
    assert gives_nothing(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM customers WHERE 1=1",
        "SELECT * FROM customers WHERE id > 0 OR 1=0",
        "SELECT * FROM customers -- WHERE 1=0",
        "SELECT * FROM customers /* x */ WHERE 1=0",
        "SELECT email FROM customers UNION ALL SELECT email FROM customers WHERE 1=0",
        "(SELECT email FROM customers) UNION SELECT email FROM customers WHERE 1=0",
        "SELECT * FROM customers; SELECT 1 WHERE 1=0",
        "WITH x AS (DELETE FROM t RETURNING 1) SELECT 1 FROM x WHERE 1=0",
        "SELECT 1 FROM t WHERE id IN (WITH x AS (SELECT 1) SELECT 1 FROM x) AND 1=0",
        "SELECT ' FROM t WHERE 1=0",
        'SELECT email AS "x WHERE 1=0',
        "SELECT $$a FROM t WHERE 1=0",
        "DELETE FROM customers WHERE 1=0",
        "SELECT email INTO z FROM customers WHERE 1=0",
        "SELECT * FROM customers WHERE 1=0 OFFSET 0 FETCH FIRST ROW ONLY",
        "SELECT a1 FROM t WHERE x1=0",
        "",
    ],
)
def test_what_may_give_or_do_something_is_no_probe(text: str) -> None:
    """Nor what hides something else behind quotes, comments, arms or further statements."""
    assert not gives_nothing(text)
