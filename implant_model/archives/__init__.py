"""Archives of radiographs, tar and zip, read member by member with proof of their end."""
