"""Numbers of the product from end to end, recorded before it is rebuilt; see README.md."""
