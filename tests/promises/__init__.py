"""What README, docs and `--help` promise, held against the program itself."""
