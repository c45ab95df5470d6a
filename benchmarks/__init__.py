"""How fast Troupe is, beside others: `make bench`. docs/performance.md says what is measured."""
