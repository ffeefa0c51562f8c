//! The frontend of dbmount: the command line, the FUSE session, and the only loop and clock.
//!
//! | module | what lives there |
//! |---|---|
//! | [`cli`] | the command line: `mount`, `umount`, and `-o` |
//! | [`source`], [`nodes`] | what can be mounted, and which engine and transport serve it |
//! | [`handoff`], [`terminal`], [`logging`] | going to the background, and what the user sees |
//! | [`mountpoint`], [`kernel`] | directories to mount on, and mounting |
//! | [`session`] | the life of a mount, from reaching the server to the last write |
//! | [`driver`], [`machine`] | steps the engine, answers the kernel, keeps the timer; its seams |
//! | [`adapter`], [`reply`], [`convert`] | FUSE operations to requests, responses to replies |
//! | [`record`] | `--record`: the session written to a file as it happens |
//! | [`invalidate`] | what the kernel is told to forget |
//! | [`interrupts`], [`process`] | signals to those who wait for a lock; what `/proc` tells of them |
//! | [`tool`] | checks and other procedures over a volume that is not mounted |
//! | [`sim`], [`redis`] | the transport of `mem:` mounts; real connections to Redis |

pub mod adapter;
pub mod cli;
pub mod convert;
pub mod driver;
pub mod handoff;
pub mod interrupts;
pub mod invalidate;
pub mod kernel;
pub mod logging;
pub mod machine;
pub mod mongo;
pub mod mountpoint;
pub mod nodes;
pub mod process;
pub mod record;
pub mod redis;
pub mod reply;
pub mod session;
pub mod sim;
pub mod source;
pub mod terminal;
pub mod tool;
