"""The table of rights: what each mutation takes.

A right on rows (VIEW to OWN) is held against the project that a mutation names a row of; the
session of the mutation does so in `fetch`. An administrator has every right.
"""

from __future__ import annotations

from db import AGENTS, ROLES, MemberRole, Right, TokenScope, Viewer
from db.scopes import visible_to

ANYBODY = None
"""Also those who have not said who they are."""

MUTATIONS: dict[str, Right | None] = {
    "addProjectMember": Right.OWN,
    "addTaskDependency": Right.EDIT,
    "appendMessages": Right.WORK,
    "archiveConversation": Right.EDIT,
    "attachTool": Right.EDIT,
    "changePassword": Right.USE,
    "createAccessToken": Right.USE,
    "createAgent": Right.EDIT,
    "createAiModel": Right.ADMINISTER,
    "createProject": Right.USE,
    "createProjectPlan": Right.USE,
    "createTask": Right.EDIT,
    "createTasks": Right.EDIT,
    "createTool": Right.EDIT,
    "createUser": Right.ADMINISTER,
    "deleteAgent": Right.EDIT,
    "deleteAiModel": Right.ADMINISTER,
    "deleteConversation": Right.EDIT,
    "deleteMessage": Right.EDIT,
    "deleteProject": Right.OWN,
    "deleteTask": Right.EDIT,
    "deleteTool": Right.EDIT,
    "deleteUser": Right.ADMINISTER,
    "detachTool": Right.EDIT,
    "editMessage": Right.EDIT,
    "login": ANYBODY,
    "logout": Right.USE,
    "notify": Right.WORK,
    "recordUsage": Right.WORK,
    "removeProjectMember": Right.OWN,
    "removeTaskDependency": Right.EDIT,
    "requestApproval": Right.WORK,
    "requestClarification": Right.WORK,
    "requestFeedback": Right.WORK,
    "revokeAccessToken": Right.USE,
    "sendCommunication": Right.WORK,
    "setPassword": Right.ADMINISTER,
    "startConversation": Right.WORK,
    "transitionAgent": Right.EDIT,
    "transitionProject": Right.EDIT,
    "transitionTool": Right.EDIT,
    "updateAgent": Right.EDIT,
    "updateAiModel": Right.ADMINISTER,
    "updateConversation": Right.EDIT,
    "updateProject": Right.EDIT,
    "updateProjectMember": Right.OWN,
    "updateTask": Right.EDIT,
    "updateTool": Right.EDIT,
    "updateUser": Right.USE,
}


SCOPES = {
    Right.VIEW: set(TokenScope),
    Right.WORK: {TokenScope.WORK, TokenScope.WRITE},
    Right.ANSWER: {TokenScope.WRITE},
    Right.EDIT: {TokenScope.WRITE},
    Right.OWN: {TokenScope.WRITE},
    Right.USE: {TokenScope.WRITE},
    Right.ADMINISTER: {TokenScope.ADMINISTER},
}
"""The scopes of a token of which it takes one to use a right."""


def may(viewer: Viewer, right: Right | None) -> bool:
    """Whether a viewer may have a right at all; on which rows is for their scopes to say."""
    if viewer.scopes and right is not None and not SCOPES[right] & viewer.scopes:
        return False
    match right:
        case None:
            return True
        case Right.ADMINISTER:
            return viewer.is_administrator
        case Right.VIEW | Right.WORK:
            return viewer.user_id is not None or viewer.agent_id is not None
    # What people do: no agent does it.
    return viewer.user_id is not None


def table() -> str:
    """Which mutation takes which right, and who has it, as a table of Markdown."""
    heads = ["mutation", "right", *(role.value.lower() for role in MemberRole), "agent", "any user"]
    rows = [heads, ["---"] * len(heads)]
    for name, right in sorted(MUTATIONS.items()):
        of_roles = [right in ROLES[role] for role in MemberRole]
        of_all = [right in AGENTS, right is Right.USE]
        if right is None:
            of_roles, of_all = [True] * len(of_roles), [True, True]
        marks = ["yes" if has else "" for has in (*of_roles, *of_all)]
        rows.append([f"`{name}`", "none" if right is None else right.value, *marks])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def sight() -> str:
    """Which type is seen by whom, as a table of Markdown."""
    rows = [("type", "seen by"), ("---", "---")]
    rows += sorted((f"`{model.__name__}`", who) for model, who in visible_to.items())
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
