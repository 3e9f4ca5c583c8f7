"""Command lines, processes, files, photos, and work that may be killed, resumed, refused or finished (`Run`)."""
