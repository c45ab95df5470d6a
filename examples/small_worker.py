"""A small worker: it claims tasks, does each within a minute, and completes it."""
# It needs no package, and in TOKEN the token of an agent that is READY.

import json, os, time
from urllib.request import Request, urlopen

URL = os.environ.get("GRAPHQL_URL", "http://127.0.0.1:8000/graphql")
HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}", "Content-Type": "application/json"}
CLAIM = "mutation { claimTask(input: {}) { message attempt { id task { title input } } } }"
END = "mutation($end: CompleteTaskInput!) { completeTask(input: $end) { userErrors { code } } }"


def send(query, **variables):
    body = json.dumps({"query": query, "variables": variables}).encode()
    return json.load(urlopen(Request(URL, body, HEADERS)))


while True:
    print(answer := send(CLAIM), flush=True)
    if attempt := answer["data"]["claimTask"]["attempt"]:
        result = {"title": attempt["task"]["title"]}  # put your own work here
        print(send(END, end={"attemptId": attempt["id"], "result": result}), flush=True)
    time.sleep(0 if attempt else 5)
