"""A column is made and filled, another retyped, one dropped."""

import sqlalchemy as sa
from alembic import op

revision = "b2"
down_revision = "a1"


def upgrade():
    """Change."""
    op.add_column("job", sa.Column("state", sa.String(9)))
    op.execute("UPDATE job SET state = 'new'")
    op.alter_column("job", "state", nullable=False)
    op.create_index("job_state", "job", ["state"])
    op.alter_column("job", "kind", type_=sa.String(40))
    op.execute("DELETE FROM kind WHERE name = 'k29'")


def downgrade():
    """Change back."""
    op.drop_index("job_state", "job")
    op.drop_column("job", "state")
    op.alter_column("job", "kind", type_=sa.Text)
