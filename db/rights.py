"""The rights that a mutation or a query may need."""

from __future__ import annotations

from enum import Enum


class Right(Enum):
    """What a viewer may do with the rows of a project, or with the server."""

    VIEW = "VIEW"
    """See them."""
    WORK = "WORK"
    """Do the work of an agent: report, ask, and send messages. An agent does so as itself."""
    ANSWER = "ANSWER"
    """Answer the requests of agents."""
    EDIT = "EDIT"
    """Change them."""
    OWN = "OWN"
    """Delete the project, and manage its members."""
    USE = "USE"
    """Use the server as a user, and manage one's own account."""
    ADMINISTER = "ADMINISTER"
    """Manage the server."""
