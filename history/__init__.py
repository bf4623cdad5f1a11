"""The long history: what the topics say as tables, exactly once, and years of it for SQL, PromQL and any tool that reads Delta Lake."""

import os

# The table library's own log is a page of Rust for a missing password; what matters of it comes as an error.
os.environ.setdefault("RUST_LOG", "error")
