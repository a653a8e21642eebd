"""From fingerprints back to structures."""
