"""The long history: what the topics say as tables, exactly once, and years of it for SQL, PromQL and any tool that reads Delta Lake."""
