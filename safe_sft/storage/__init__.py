"""Files and folders that are written whole or not at all, and transfers from and to the Hub."""
