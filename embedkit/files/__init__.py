"""Named bytes in a folder or an object store, behind one small protocol."""
