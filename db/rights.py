"""The rights that a mutation or a query may need."""

from __future__ import annotations

from enum import Enum


class Right(Enum):
    """What somebody may do with what belongs to a project, or with the server."""

    VIEW = "VIEW"
    """To see it."""
    WORK = "WORK"
    """To do what workers do: say what they did, ask, and talk. An agent does so as itself."""
    ANSWER = "ANSWER"
    """To answer what agents ask of people."""
    EDIT = "EDIT"
    """To change it."""
    OWN = "OWN"
    """To delete it, and to decide who may do what in it."""
    USE = "USE"
    """To use the server as a person, and to manage what is one's own."""
    ADMINISTER = "ADMINISTER"
    """To manage the server itself."""
