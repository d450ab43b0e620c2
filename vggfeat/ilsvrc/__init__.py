"""The ILSVRC test protocols: classification (Section 3.2) and localisation (Appendix A)."""
