"""What has each step of a trial seen?"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of evidence."""
    op.create_table(
        "trial_evidence",
        sa.Column("trial", sa.Text, sa.ForeignKey("trials.id"), primary_key=True, nullable=False),
        sa.Column("step", sa.Integer, primary_key=True, nullable=False),
        sa.Column("evidence", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
