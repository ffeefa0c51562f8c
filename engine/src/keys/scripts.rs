//! The server-side scripts of the keys layout. Each has a Rust twin in the simulator, and a test
//! holds the two together on a real server.

use crate::backend::redis::Script;

macro_rules! script {
    ($name:literal, $flags:literal, $($part:literal),+) => {
        Script {
            name: $name,
            body: concat!(
                "#!lua flags=", $flags, "\n",
                $(include_str!(concat!("scripts/", $part, ".lua"))),+
            ),
        }
    };
}

/// Describes names and keys.
pub static STAT: Script = script!("stat", "no-writes", "place", "render", "stat");
/// Reads a range of a value.
pub static READ: Script = script!("read", "no-writes", "place", "render", "read");
/// Writes ranges of a value.
pub static WRITE: Script = script!("write", "", "place", "write");
/// Prepares the staging of a large field.
pub static STAGE: Script = script!("stage", "", "place", "stage");
/// Publishes a staged value.
pub static PUBLISH: Script = script!("publish", "", "place", "publish");
/// Applies a plan.
pub static COMMIT: Script = script!("commit", "", "place", "tree", "commit");
/// Applies a plan that frees memory, so that `rm` works on a full server.
pub static COMMIT_FREEING: Script =
    script!("commit-freeing", "allow-oom", "place", "tree", "commit");
/// Renames many keys at once.
pub static RETREE: Script = script!("retree", "allow-oom", "place", "tree", "retree");
/// Reads extended attributes.
pub static XATTR: Script = script!("xattr", "no-writes", "place", "render", "xattr");

/// Finds out which commands the user may not run.
pub static PROBE: Script = script!("probe", "", "probe");

/// All of them, for loading at connect.
pub static ALL: [&Script; 10] =
    [&STAT, &READ, &WRITE, &STAGE, &PUBLISH, &COMMIT, &COMMIT_FREEING, &RETREE, &XATTR, &PROBE];
