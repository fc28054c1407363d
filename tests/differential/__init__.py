"""Back ends held against each other on whole guests."""
