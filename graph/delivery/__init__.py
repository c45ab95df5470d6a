"""How webhooks are sent what has happened: messages, the HTTP client, and the worker that sends."""
