//! The command line: what the user asks for, what ends well, and how the rest is said.

mod args;
mod format;
mod mount;
pub mod options;
mod replay;
mod selftest;
mod umount;
mod volume;

use std::ffi::OsString;
use std::fmt;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::handoff::{Handoff, PASSWORD_VARIABLE};
use crate::source::Opener;
use args::{Cli, Command};

/// Why a command did not do what was asked, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// It was asked wrongly.
    Usage(String),
    /// It could not be done.
    Failed(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(line) | Failure::Failed(line) => f.write_str(line),
        }
    }
}

impl Failure {
    /// 1 and 2; or, for mount(8), its own 32 ("mount failure") and 1 ("incorrect invocation").
    fn status(&self, helper: bool) -> u8 {
        match (self, helper) {
            (Failure::Usage(_), false) => 2,
            (Failure::Usage(_), true) => 1,
            (Failure::Failed(_), false) => 1,
            (Failure::Failed(_), true) => 32,
        }
    }
}

/// Does what a command line asks for; sources are opened by `opener`.
#[must_use]
pub fn run(opener: &impl Opener, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let call = options::invocation(arguments);
    let cli = match Cli::try_parse_from(&call.arguments) {
        Ok(cli) => cli,
        Err(error) => return misunderstood(&error, call.helper),
    };
    let done = match cli.command {
        Command::Mount(_) if call.fake => Ok(()),
        Command::Mount(args) => mount::run(opener, &args, call.arguments),
        Command::Format(args) => format::run(opener, &args),
        Command::Fsck(args) => return volume::fsck(&args),
        Command::Gc(args) => volume::gc(&args),
        Command::Info(args) => volume::info(&args),
        Command::Umount(args) => umount::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Serve { .. } => return serve(opener),
    };
    finish(done, call.helper)
}

fn finish(done: Result<(), Failure>, helper: bool) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("dbmount: {failure}");
            ExitCode::from(failure.status(helper))
        }
    }
}

/// `clap` explains over several lines; what went wrong is said in one, and help is pointed to.
fn misunderstood(error: &clap::Error, helper: bool) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Help or the version was asked for, or nothing was. A closed pipe is no reason to fail.
        let _shown = error.print();
        return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
    }
    let text = error.to_string();
    let mut parts: Vec<&str> = Vec::new();
    for line in text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")) {
        if !line.is_empty() && !line.starts_with("For more information") {
            parts.push(line.strip_prefix("error: ").unwrap_or(line));
        }
    }
    finish(Err(Failure::Usage(format!("{}; see `dbmount --help`", parts.join(" ")))), helper)
}

/// The serving process. It has nobody to show an error to but its log and its starter, and in
/// the foreground the user.
fn serve(opener: &impl Opener) -> ExitCode {
    let handoff = match Handoff::receive() {
        Ok(handoff) => handoff,
        Err(line) => return finish(Err(Failure::Usage(line)), false),
    };
    debug_assert!(std::env::var_os(PASSWORD_VARIABLE).is_none(), "left out when it was started");
    match Cli::try_parse_from(&handoff.arguments).map(|cli| cli.command) {
        Ok(Command::Mount(args)) => {
            let served = mount::serve_handed_over(opener, &args, handoff.password);
            if args.foreground {
                return finish(served, false);
            }
            // Its starter says what went wrong.
            served.map_or_else(
                |failure| ExitCode::from(failure.status(false)),
                |()| ExitCode::SUCCESS,
            )
        }
        _ => finish(Err(Failure::Usage("only mounts are handed over".to_owned())), false),
    }
}
