"""What the Helm chart takes from elsewhere: the schema of its values, the sections of each part, and the rules of Prometheus."""
