"""Generated code, kept as text so that a change in its quality is seen in review."""
