"""How did the estimates of a trial go, look by look?"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of looks."""
    op.create_table(
        "trial_looks",
        sa.Column("trial", sa.Text, sa.ForeignKey("trials.id"), primary_key=True, nullable=False),
        sa.Column("step", sa.Integer, primary_key=True, nullable=False),
        sa.Column("at", sa.BigInteger, primary_key=True, nullable=False),
        sa.Column("look", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("rows", sa.Text, nullable=False),
    )
