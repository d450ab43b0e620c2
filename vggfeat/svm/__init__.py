"""From descriptors to decisions: linear SVMs, metrics and protocols."""
