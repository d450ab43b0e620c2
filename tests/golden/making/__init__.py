"""What makes the inputs; every module here is imported by `golden.inputs`."""
