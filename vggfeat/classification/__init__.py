"""ILSVRC's test protocols for classification: scales, crops and fusion (Section 3.2)."""
