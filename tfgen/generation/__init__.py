"""From a wanted property to new, verified structures."""
