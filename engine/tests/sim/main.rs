//! The engine over simulated servers: every layout is held to the reference model, alone and
//! together, in storms and broken at every place; the keys layout to the keyspace and to its word
//! about round trips; and the plays themselves to what they must notice.

mod bucket;
mod bucket_others;
mod canary;
mod check;
mod fsck;
mod graves;
mod keyspace;
mod listing;
mod locks;
mod model;
mod overlap;
mod pinned;
mod prefix;
mod round_trips;
mod round_trips_posix;
mod shared;
mod storm;
mod tapes;
mod volume;
