"""What was measured, as tables on the screen and as files."""
