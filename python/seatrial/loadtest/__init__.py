"""Load on any service: what a user wrote becomes loads, and loads become one judged result."""
