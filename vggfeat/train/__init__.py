"""Training the networks of Table 1 (Section 3.1)."""
