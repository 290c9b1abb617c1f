"""What is measured of a loop in production: performance on mature labels, and how many labels matured."""
