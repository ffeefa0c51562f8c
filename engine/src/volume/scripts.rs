//! The server-side scripts of the volume layout. Each has a Rust twin in the simulator, and a test
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

/// Makes a volume.
pub static FORMAT: Script = script!("volume-format", "", "prelude", "format");
/// Gives a mount its numbers and its lease.
pub static ENTER: Script = script!("volume-enter", "allow-oom", "prelude", "enter");
/// Looks a name up.
pub static LOOK: Script = script!("volume-look", "no-writes", "prelude", "look");
/// Lists a page of a directory.
pub static PAGE: Script = script!("volume-page", "no-writes", "prelude", "page");
/// Lists the directories above one.
pub static CHAIN: Script = script!("volume-chain", "no-writes", "prelude", "chain");
/// Finds data and holes.
pub static SEEK: Script = script!("volume-seek", "no-writes", "prelude", "seek");
/// Figures of the volume and of the server.
pub static FIGURES: Script = script!("volume-figures", "no-writes", "prelude", "figures");
/// Applies a plan.
pub static COMMIT: Script = script!("volume-commit", "", "prelude", "commit");
/// Applies a plan that frees memory, or takes none to speak of, so that `rm` works on a full
/// server.
pub static COMMIT_FREEING: Script =
    script!("volume-commit-freeing", "allow-oom", "prelude", "commit");
/// Writes contents.
pub static WRITE: Script = script!("volume-write", "", "prelude", "write");
/// Changes what a mount has locked.
pub static LOCK: Script = script!("volume-lock", "allow-oom", "prelude", "lock");
/// Removes bytes beyond the end of contents.
pub static CLEAN: Script = script!("volume-clean", "allow-oom", "prelude", "clean");
/// Keeps a mount alive and lays inodes to rest.
pub static REAP: Script = script!("volume-reap", "allow-oom", "prelude", "reap");
/// Finds out which commands the user may not run.
pub static PROBE: Script = script!("volume-probe", "", "probe");

/// All of them, for loading at connect.
pub static ALL: [&Script; 14] = [
    &FORMAT,
    &ENTER,
    &LOOK,
    &PAGE,
    &CHAIN,
    &FIGURES,
    &SEEK,
    &COMMIT,
    &COMMIT_FREEING,
    &WRITE,
    &LOCK,
    &CLEAN,
    &REAP,
    &PROBE,
];
