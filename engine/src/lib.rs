//! engine
#![no_std]

extern crate alloc;

/// Redis keys.
pub mod keys {
    pub mod name;
}
