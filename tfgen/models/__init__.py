"""The networks, their training, and the artefacts they are kept in."""
