//! The engine over the simulated Redis: held to the reference model, to the keyspace, and to its
//! word about round trips.

mod bucket;
mod bucket_others;
mod check;
mod fsck;
mod keyspace;
mod listing;
mod locks;
mod model;
mod overlap;
mod pinned;
mod round_trips;
mod round_trips_bucket;
mod shared;
mod storm;
mod tapes;
mod volume;
