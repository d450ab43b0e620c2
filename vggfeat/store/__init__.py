"""Descriptors on disk: a table of columns that grows, crash-safe, read by any HDF5 reader."""
