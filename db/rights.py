"""The rights, and who has which in a project."""

from __future__ import annotations

from enum import Enum

from db.members import MemberRole


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


ROLES = {
    MemberRole.OWNER: {Right.VIEW, Right.WORK, Right.ANSWER, Right.EDIT, Right.OWN},
    MemberRole.EDITOR: {Right.VIEW, Right.WORK, Right.ANSWER, Right.EDIT},
    MemberRole.APPROVER: {Right.VIEW, Right.ANSWER},
    MemberRole.VIEWER: {Right.VIEW},
}
"""The rights of a member on all that belongs to the project."""

AGENTS = {Right.VIEW, Right.WORK}
"""The rights of an agent in its own project."""
