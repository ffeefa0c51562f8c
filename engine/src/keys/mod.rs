//! The keys layout: a Redis keyspace as files. `:` in a key is `/` in a path, hash fields are
//! `key.field`, other types are readable text.

pub mod name;
pub mod scripts;
