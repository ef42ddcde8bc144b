"""What this machine can measure, what not, why, and how to mend it."""
