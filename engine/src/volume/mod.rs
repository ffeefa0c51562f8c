//! The volume layout: a POSIX filesystem whose disk is Redis.
//!
//! | file | what it is for |
//! |---|---|
//! | [`key`] | the keys of a volume |
//! | [`record`] | what they hold: superblock, inodes, directory entries |

pub mod key;
pub mod record;
