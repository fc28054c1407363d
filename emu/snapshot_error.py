"""The exception of snapshots and recordings; apart, so that the command line needn't import the rest."""


class SnapshotError(Exception):
    """A snapshot or recording that can't be made or used; the message is one line for the user."""
