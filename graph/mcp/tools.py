"""The tools: what an agent wants to do, and the operations of the schema that do it.

A tool has the variables of its operations as arguments, and what they select as its result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from graphql import OperationDefinitionNode, parse

KIND = "kind"
"""The argument that chooses between operations."""

PROJECT, AGENT = "project", "agent"
"""What an argument may be by default: the project of the viewer's agent, or the agent itself."""

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "acknowledgeIds": "`receive` returns them as the id of each message.",
        "after": "`find_ready_work` returns it as pageInfo.endCursor.",
        "assigneeId": "Without it, anybody who may answer can.",
        "attemptId": "`claim` returns it as attempt.id.",
        "id": "`ask_person` returns it as interaction.id.",
        "toAgentId": "`search` finds it by the name of the agent.",
        "replyToId": "`receive` returns it as the id of the message.",
        "taskId": "`claim` returns it as attempt.task.id.",
    }
)
"""Where the values of arguments come from."""


@dataclass(frozen=True)
class Tool:
    """A tool, in the words of who uses it. The rest is known from its operations."""

    name: str
    title: str
    when: str
    """When to use it: the first sentence of its description."""
    document: str
    """Its operations. The first that has all arguments which are given is executed.

    If there are several kinds, the name of each is that of the tool and the kind.
    """
    own: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The arguments that are PROJECT or AGENT by default."""
    seen_by: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Of a list, the queries `seen` that find what an argument names, if the viewer sees it."""
    repeats: bool = False
    """Whether the same call once more changes nothing."""

    @cached_property
    def operations(self) -> dict[str, OperationDefinitionNode]:
        """Its operations, by name."""
        definitions = parse(self.document).definitions
        operations = [each for each in definitions if isinstance(each, OperationDefinitionNode)]
        return {each.name.value: each for each in operations if each.name is not None}

    def kind_of(self, operation: str) -> str | None:
        """The kind of one of its operations, if it has kinds."""
        prefix, _, kind = operation.rpartition("_")
        return kind if kind.isupper() and prefix == self.name else None

    @property
    def kinds(self) -> list[str]:
        """Its kinds, if it has some."""
        kinds = (self.kind_of(name) for name in self.operations)
        return [kind for kind in kinds if kind is not None]

    @property
    def arguments(self) -> set[str]:
        """The names of its arguments."""
        names = {name for each in self.operations.values() for name in variables_of(each)}
        return names | ({KIND} if self.kinds else set())

    def arguments_of(self, kind: str) -> set[str]:
        """The names of the arguments of a kind."""
        return {KIND, *variables_of(self.operations[f"{self.name}_{kind}"])}


def variables_of(operation: OperationDefinitionNode) -> list[str]:
    """The names of the variables of an operation."""
    return [each.variable.name.value for each in operation.variable_definitions or ()]


# The arguments of all kinds of requests to people.
ASKING = (
    "title: String!",
    "content: JSON!",
    "attemptId: ID",
    "projectId: ID",
    "blockTask: Boolean",
    "checkpoint: JSON",
    "assigneeId: ID",
    "priority: Int",
    "expiresAt: DateTime",
    "onExpiry: OnExpiry",
    "idempotencyKey: String",
)


def _request(kind: str, mutation: str, result: str, *more: str) -> str:
    """The operation that makes a request to people."""
    variables = ", ".join(f"${variable}" for variable in (*ASKING, *more))
    names = (variable.partition(":")[0] for variable in (*ASKING, *more))
    input = ", ".join(f"{name}: ${name}" for name in names)
    return f"""mutation ask_person_{kind}({variables}) {{
  {mutation}(input: {{{input}}}) {{
    interaction: {result} {{ id status expiresAt }}
    userErrors {{ message code path }}
  }}
}}"""


TOOLS = (
    Tool(
        "find_ready_work",
        "Find ready work",
        "Look at what could be claimed, without taking it; claim takes the first.",
        """query find_ready_work($projectId: ID!, $agentId: ID, $after: String) {
  readyTasks(projectId: $projectId, agentId: $agentId, first: 10, after: $after) {
    nodes { id title type priority description dueAt estimatedSeconds }
    pageInfo { hasNextPage endCursor }
  }
}""",
        own={"projectId": PROJECT, "agentId": AGENT},
        seen_by={
            "projectId": "query seen($id: ID!) { seen: project(id: $id) { id } }",
            "agentId": "query seen($id: ID!) { seen: agent(id: $id) { id } }",
        },
    ),
    Tool(
        "claim",
        "Claim a task",
        "Get the next task to work on. Keep its attempt's id: heartbeat, complete, fail and release"
        " need it.",
        """mutation claim(
  $agentId: ID, $types: [String!], $leaseSeconds: Int, $idempotencyKey: String
) {
  claimTask(input: {
    agentId: $agentId, types: $types, leaseSeconds: $leaseSeconds, idempotencyKey: $idempotencyKey
  }) {
    attempt {
      id
      number
      leaseExpiresAt
      traceparent
      task {
        id
        title
        description
        type
        priority
        input
        acceptanceCriteria
        resourceKeys
        dueAt
        estimatedSeconds
        maxAttempts
        checkpoint
        project { id name }
        attempts(last: 3) { nodes { number status statusMessage handover error } }
        interactions(last: 3) {
          nodes {
            id
            title
            status
            ... on ApprovalRequest { approved comment }
            ... on FeedbackRequest { feedback rating }
            ... on ClarificationRequest { answer }
          }
        }
      }
    }
    reason
    message
    availableAt
    userErrors { message code path }
  }
}""",
    ),
    Tool(
        "heartbeat",
        "Keep a task and report progress",
        "Call this while you work, at least twice within leaseSeconds.",
        """mutation heartbeat(
  $attemptId: ID!, $progressPercent: Int, $statusMessage: String, $checkpoint: JSON,
  $leaseSeconds: Int
) {
  heartbeat(input: {
    attempts: [{
      attemptId: $attemptId, progressPercent: $progressPercent, statusMessage: $statusMessage,
      checkpoint: $checkpoint
    }],
    leaseSeconds: $leaseSeconds
  }) {
    attempts { id status leaseExpiresAt leaseLost cancelRequested pauseRequested }
    userErrors { message code path }
  }
}""",
        repeats=True,
    ),
    Tool(
        "ask_person",
        "Ask a person",
        "Ask people for an approval, an answer or an opinion; then call wait_for_answer, or block"
        " the task and go on with another one.",
        "\n\n".join(
            (
                _request(
                    "APPROVAL", "requestApproval", "approvalRequest", "requiredApprovals: Int"
                ),
                _request("CLARIFICATION", "requestClarification", "clarificationRequest"),
                _request("FEEDBACK", "requestFeedback", "feedbackRequest"),
            )
        ),
        own={"projectId": PROJECT},
    ),
    Tool(
        "wait_for_answer",
        "Wait for the answer of a person",
        "Wait until people have answered what you asked. If it is still PENDING, call this again.",
        """query wait_for_answer($id: ID!, $timeoutSeconds: Int) {
  awaitInteraction(id: $id, timeoutSeconds: $timeoutSeconds) {
    id
    type
    title
    status
    createdAt
    updatedAt
    expiresAt
    ... on ApprovalRequest { approved comment approvalCount requiredApprovals }
    ... on FeedbackRequest { feedback rating }
    ... on ClarificationRequest { answer }
  }
}""",
    ),
    Tool(
        "complete",
        "Complete a task",
        "Call this when the task is done.",
        """mutation complete($attemptId: ID!, $result: JSON, $idempotencyKey: String) {
  completeTask(input: {
    attemptId: $attemptId, result: $result, idempotencyKey: $idempotencyKey
  }) {
    attempt { status task { id title status availableAt } }
    userErrors { message code path }
  }
}""",
        repeats=True,
    ),
    Tool(
        "fail",
        "Fail a task",
        "Call this when you cannot do the task.",
        """mutation fail(
  $attemptId: ID!, $error: JSON!, $retryable: Boolean, $checkpoint: JSON, $idempotencyKey: String
) {
  failTask(input: {
    attemptId: $attemptId, error: $error, retryable: $retryable, checkpoint: $checkpoint,
    idempotencyKey: $idempotencyKey
  }) {
    attempt { status task { id title status availableAt } }
    userErrors { message code path }
  }
}""",
    ),
    Tool(
        "release",
        "Release a task",
        "Give the task back with a handover, so that another agent goes on with it.",
        """mutation release(
  $attemptId: ID!, $handover: String, $checkpoint: JSON, $idempotencyKey: String
) {
  releaseTask(input: {
    attemptId: $attemptId, handover: $handover, checkpoint: $checkpoint,
    idempotencyKey: $idempotencyKey
  }) {
    attempt { status task { id title status availableAt } }
    userErrors { message code path }
  }
}""",
    ),
    Tool(
        "send",
        "Send a message to an agent",
        "Tell another agent something; search finds its id.",
        """mutation send(
  $toAgentId: ID!, $type: String!, $content: JSON!, $fromAgentId: ID!, $priority: Int,
  $taskId: ID, $replyToId: ID, $correlationId: String, $expiresAt: DateTime,
  $idempotencyKey: String
) {
  sendCommunication(input: {
    toAgentId: $toAgentId, type: $type, content: $content, fromAgentId: $fromAgentId,
    priority: $priority, taskId: $taskId, replyToId: $replyToId, correlationId: $correlationId,
    expiresAt: $expiresAt, idempotencyKey: $idempotencyKey
  }) {
    communication { id status }
    userErrors { message code path }
  }
}""",
        own={"fromAgentId": AGENT},
    ),
    Tool(
        "receive",
        "Receive messages from agents",
        "Read the messages to you, and acknowledge those that you have dealt with.",
        """mutation receive(
  $agentId: ID, $limit: Int, $leaseSeconds: Int, $idempotencyKey: String
) {
  receiveCommunications(input: {
    agentId: $agentId, limit: $limit, leaseSeconds: $leaseSeconds, idempotencyKey: $idempotencyKey
  }) {
    communications { ...received }
    userErrors { message code path }
  }
}

mutation receive_and_acknowledge(
  $acknowledgeIds: [ID!]!, $agentId: ID, $limit: Int, $leaseSeconds: Int, $idempotencyKey: String
) {
  acknowledgeCommunications(input: {ids: $acknowledgeIds}) {
    userErrors { message code path }
  }
  receiveCommunications(input: {
    agentId: $agentId, limit: $limit, leaseSeconds: $leaseSeconds, idempotencyKey: $idempotencyKey
  }) {
    communications { ...received }
    userErrors { message code path }
  }
}

fragment received on Communication {
  id
  type
  content
  priority
  correlationId
  sentAt
  leaseExpiresAt
  fromAgent { id name }
  task { id title }
  replyTo { id }
}""",
    ),
    Tool(
        "record_usage",
        "Record a call of an AI model",
        "Record what a call of a model has used, so that its cost is known.",
        """mutation record_usage(
  $projectId: ID!, $modelName: String!, $inputTokens: Int, $cachedInputTokens: Int,
  $cacheCreationTokens: Int, $outputTokens: Int, $reasoningTokens: Int, $cost: Decimal,
  $latencyMs: Int, $success: Boolean, $requestId: String, $attemptId: ID, $taskId: ID,
  $conversationId: ID
) {
  recordUsage(input: {
    projectId: $projectId,
    records: [{
      modelName: $modelName, inputTokens: $inputTokens, cachedInputTokens: $cachedInputTokens,
      cacheCreationTokens: $cacheCreationTokens, outputTokens: $outputTokens,
      reasoningTokens: $reasoningTokens, cost: $cost, latencyMs: $latencyMs, success: $success,
      requestId: $requestId, attemptId: $attemptId, taskId: $taskId,
      conversationId: $conversationId
    }]
  }) {
    usageRecords { id cost }
    userErrors { message code path }
  }
}""",
        own={"projectId": PROJECT},
    ),
    Tool(
        "search",
        "Search",
        "Find projects, agents and tasks by a part of their names and titles, and messages of"
        " conversations by their words. An empty query finds the newest of the first three.",
        """query search($query: String!) {
  messages: searchMessages(query: $query, first: 5) {
    nodes {
      id
      sender
      timestamp
      conversation { id title }
      highlights(query: $query, first: 8) { text }
    }
  }
  projects(first: 5, orderBy: CREATED_AT_DESC, where: {name: {containsInsensitive: $query}}) {
    nodes { id name status }
  }
  agents(first: 10, orderBy: CREATED_AT_DESC, where: {name: {containsInsensitive: $query}}) {
    nodes { id name type status project { id } }
  }
  tasks(first: 10, orderBy: CREATED_AT_DESC, where: {title: {containsInsensitive: $query}}) {
    nodes { id title status project { id } }
  }
}""",
    ),
)
"""The tools, in the order of a worker's day. Clients list at most a few dozen well."""
