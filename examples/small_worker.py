"""A small worker: it claims tasks, does each within a minute, and completes it."""
# It needs no package, and in TOKEN the token of an agent that is READY.

import json
import os
import time
from typing import Any
from urllib.request import Request, urlopen

URL = os.environ.get("GRAPHQL_URL", "http://127.0.0.1:8000/graphql")
HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}", "Content-Type": "application/json"}
CLAIM = "mutation { claimTask(input: {}) { message attempt { id task { title input } } } }"
COMPLETE = """mutation($done: CompleteTaskInput!) {
  completeTask(input: $done) { userErrors { message } } }"""


def send(query: str, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    with urlopen(Request(URL, body, HEADERS)) as response:
        answer = json.load(response)
    assert "errors" not in answer, answer["errors"]
    return answer["data"]


while True:
    claimed = send(CLAIM)["claimTask"]
    if attempt := claimed["attempt"]:
        result = {"title": attempt["task"]["title"]}  # put your own work here
        print(send(COMPLETE, done={"attemptId": attempt["id"], "result": result}), flush=True)
    else:
        print(claimed["message"], flush=True)
        time.sleep(5)
