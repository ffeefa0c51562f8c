//! What a metadata operation means: pure functions from the facts at hand to a decision.
//!
//! `decide(&Request, &View)` is straight-line Rust. A fact that is not at hand ends it with
//! [`Missing`]; the transaction machine fetches what is missing and decides again. With all facts
//! there, the decision is a reply (an errno too) or a [`Plan`]. POSIX rules stand here, once, for
//! all layouts; nothing here knows how a fact is stored.

mod plan;
mod view;

pub use plan::{Answer, Change, Check, Decision, Patch, Plan, Reply};
pub use view::{Cached, Caps, Fact, Facts, Held, Missing, View, Want};
