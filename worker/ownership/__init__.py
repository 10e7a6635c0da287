"""Who owns what, read from the chain by subgraphs: forms of queries, the client, looks, and when to look."""
