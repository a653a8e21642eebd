"""What a structure is: batches, neighbours, checks, similarity, validity, properties."""
