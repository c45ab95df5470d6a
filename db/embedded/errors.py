"""The one error that the embedded database shows to people."""


class EmbeddedError(Exception):
    """The embedded database cannot be used; the message is one clear sentence for the user."""
