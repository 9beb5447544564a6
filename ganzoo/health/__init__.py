"""What shows how a game goes, and the names of what goes wrong."""
