"""What is wrong with an installation, and what of it can be mended: one check per file."""
