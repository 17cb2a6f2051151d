"""Looking at data: the check of a directory, dumps, contact sheets, published counts."""
