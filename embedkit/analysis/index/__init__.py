"""Search indexes: built, tuned, asked, grown and kept in files."""
