"""The command line: one file for each subcommand, which parses the options and calls the library."""

from .quiet import silence_libraries

silence_libraries()  # before a command imports them
