"""The report: a page that opens with no network."""
