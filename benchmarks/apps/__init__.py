"""The applications under load: as small as their interface allows, so that the server's own work is what shows."""
