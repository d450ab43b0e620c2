"""What of vggfeat the cases touch: the only folder here that changes while the product moves.

Command words, keys of JSON, paths in HDF5, names in stores, and imports. A case says what it
means in words that stay (image, descriptor, column); this says what it is called today.
"""
