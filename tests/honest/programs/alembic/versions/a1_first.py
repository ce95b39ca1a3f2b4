"""Tables and their first rows."""

import sqlalchemy as sa
from alembic import op

revision = "a1"
down_revision = None


def upgrade():
    """Make."""
    op.create_table("job", sa.Column("id", sa.Integer, primary_key=True), sa.Column("kind", sa.Text))
    op.create_table("kind", sa.Column("name", sa.Text, primary_key=True))
    op.bulk_insert(sa.table("kind", sa.column("name")), [{"name": f"k{n}"} for n in range(30)])
    op.execute("INSERT INTO job (kind) SELECT 'k' || n % 30 FROM generate_series(1, 400) AS n")


def downgrade():
    """Take away."""
    op.drop_table("kind")
    op.drop_table("job")
