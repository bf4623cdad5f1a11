"""Commands on the topics: create and list them, watch their messages, and the migrations that they hold."""
