"""How fast Seatrial's own instruments are, side by side with the least a C program can do."""
