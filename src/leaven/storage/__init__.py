"""Where events and control state are kept: write-ahead log, lake tables, and (in `control`) the control database."""
