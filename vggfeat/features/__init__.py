"""Dense extraction: from pictures to descriptors in a store."""
