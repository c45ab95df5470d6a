"""The Model Context Protocol at `/mcp`: tools for agents, each an operation of the schema."""
