"""Files, checksums, downloads and addresses: private helpers that know nothing of images."""
