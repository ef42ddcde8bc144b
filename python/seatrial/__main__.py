"""``python -m seatrial`` is the command ``seatrial``."""

from seatrial.cli.main import console

if __name__ == "__main__":
    console()
