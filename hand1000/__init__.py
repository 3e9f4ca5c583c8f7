"""What the Hand1000 scripts share: one module per idea. See the README for the scripts themselves."""
