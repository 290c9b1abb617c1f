"""A copy of an installation, taken while it runs, and an installation made of one."""
