"""Dense extraction: from images to descriptors in a store."""
