"""Servers elsewhere that answer for a version: how one is described, asked, and protected from its own trouble."""
