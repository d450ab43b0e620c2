"""Localisation: box regression, merging and the two test protocols (Appendix A)."""
