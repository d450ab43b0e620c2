"""Images and labels: finding, decoding, rescaling and batching them."""
