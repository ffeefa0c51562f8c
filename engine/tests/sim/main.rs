//! The engine over the simulated Redis: held to the reference model, to the keyspace, and to its
//! word about round trips.

mod model;
mod overlap;
mod play;
