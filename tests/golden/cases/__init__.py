"""The cases, one or a few a file; every module here is imported by `golden.case.load`."""
