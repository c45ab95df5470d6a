"""A small worker: it claims tasks, does each within a minute, and completes it."""
# It needs no package, and in TOKEN the token of an agent that is READY.

import json, os, sys, time
from urllib.request import Request, urlopen

URL = os.environ.get("GRAPHQL_URL", "http://127.0.0.1:8000/graphql")
HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}", "Content-Type": "application/json"}
CLAIM = """mutation { claimTask(input: {}) {
  message attempt { id task { title input } } userErrors { message } } }"""
END = "mutation($end: CompleteTaskInput!) { completeTask(input: $end) { userErrors { message } } }"


def send(query, **variables):
    body = json.dumps({"query": query, "variables": variables}).encode()
    answer = json.load(urlopen(Request(URL, body, HEADERS)))
    if "errors" in answer:
        sys.exit(answer["errors"][0]["message"])
    print(answer["data"], flush=True)
    return answer["data"]


while True:
    if attempt := send(CLAIM)["claimTask"]["attempt"]:
        result = {"title": attempt["task"]["title"]}  # put your own work here
        send(END, end={"attemptId": attempt["id"], "result": result})
    time.sleep(0 if attempt else 5)
