"""What leaves the process: files written whole or not at all, transfers to the Hub, texts shown; without secrets."""
