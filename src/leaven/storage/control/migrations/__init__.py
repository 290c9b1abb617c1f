"""The steps that the control database's tables went through, oldest first; a step is never changed once released.

A new one: a file here with the next number, the number in `migrate.REVISIONS`, the same change in `schema.py`.
"""
