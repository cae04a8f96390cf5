"""The command line: one file for each subcommand, which parses the options and calls the library."""

from .quiet import hide_secrets, silence_libraries

hide_secrets()
silence_libraries()  # before a command imports them
