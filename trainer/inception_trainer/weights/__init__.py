"""Weight files: published ones read, trained ones opened, averaged and exported."""
