"""From the words of a config to the objects of the rooms: systems, fields, and the places of results."""
