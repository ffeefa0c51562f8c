//! MongoDB connections: the self-contained wire codec, SCRAM, topology, sessions.
