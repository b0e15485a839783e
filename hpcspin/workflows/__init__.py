"""One file a verb: here the rooms are joined."""
