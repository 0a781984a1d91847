"""From an entity to vectors, words and cells: values, tokens, keys and neighbours."""
