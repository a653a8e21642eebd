"""Making and perturbing structures."""
