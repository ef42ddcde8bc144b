"""Seatrial: what a sandbox costs, and what a platform does under load."""
