"""Local state: the graph store on RocksDB and the vector index on FAISS."""
