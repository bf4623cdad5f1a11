"""Who may ask the HTTP endpoints: the web configuration file, TLS, passwords, tokens and rights."""
