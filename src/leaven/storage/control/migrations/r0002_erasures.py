"""How are requests to erase a unit kept?"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table of erasures."""
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("loop", sa.Text, nullable=False),
        sa.Column("unit", sa.Text),
        sa.Column("salt", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("grace_until", sa.BigInteger, nullable=False),
        sa.Column("predictions", sa.BigInteger, nullable=False),
        sa.Column("feedback", sa.BigInteger, nullable=False),
        sa.Column("feedback_mark", sa.BigInteger, nullable=False),
        sa.Column("rewritten_at", sa.BigInteger),
        sa.Column("done_at", sa.BigInteger),
        sa.Column("last", sa.Boolean, nullable=False),
    )
    op.create_index("erasures_by_loop", "erasures", ["loop", "requested_at"])
