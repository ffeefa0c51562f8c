//! The seam between the engine and a layout: how plans become commands and replies facts.

use core::fmt::Debug;

use crate::backend::Backend;

/// A way of keeping a filesystem in a database.
pub trait Layout: Clone + Debug {
    /// The kind of server it speaks to.
    type Backend: Backend;
}
