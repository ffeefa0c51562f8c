//! `dbmount format`: makes a volume, which is what attaching does when it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dbmount_engine::volume::Format;
use dbmount_engine::{Config, Request, Response};

use super::Failure;
use super::args::FormatArgs;
use super::mount::choose_password;
use crate::driver::Driver;
use crate::handoff::PASSWORD_VARIABLE;
use crate::machine::Machine;
use crate::mountpoint::plain;
use crate::source::{GridfsOptions, KeysOptions, Opener, Serve, Settings, Source, VolumeOptions};

pub(super) fn run(opener: &impl Opener, args: &FormatArgs) -> Result<(), Failure> {
    let source = Source::parse(&args.source).map_err(Failure::Usage)?;
    if !matches!(source, Source::Volume(_)) {
        return Err(Failure::Usage(format!(
            "{source} is no volume; name one: redis://HOST/DB?volume=NAME"
        )));
    }
    let format = Format {
        block: u32::try_from(args.block_size).unwrap_or(u32::MAX),
        capacity: args.capacity.map_or(0, |bytes| bytes as u64),
        inodes: args.inodes.unwrap_or(0),
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..Format::default()
    };
    format.check().map_err(Failure::Usage)?;
    let variable = std::env::var_os(PASSWORD_VARIABLE);
    let password = choose_password(args.password_file.as_ref(), variable, &source)?;
    let timeout = Duration::from_secs(u64::from(args.timeout));
    let settings = Settings {
        config: Config { op_timeout: timeout, ..Config::default() },
        keys: KeysOptions::plain(),
        gridfs: GridfsOptions { chunk_size: 0, keep_revisions: 0 },
        volume: VolumeOptions { format: Some(format), force: args.force },
        password,
        record: None,
    };
    opener.open(&source, &settings, Once { timeout }).map_err(Failure::Failed)?;
    println!("made {source}");
    Ok(())
}

/// Attaches, and is done.
struct Once {
    timeout: Duration,
}

impl Serve for Once {
    fn serve<M: Machine>(self, driver: Arc<Driver<M>>) -> Result<(), String> {
        driver.spawn_timer().map_err(|error| plain(&error))?;
        let result = self.attach(&driver);
        driver.shutdown();
        result
    }
}

impl Once {
    fn attach<M: Machine>(&self, driver: &Driver<M>) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        let left = || deadline.saturating_duration_since(Instant::now());
        let unanswered = |_| {
            let seconds = self.timeout.as_secs();
            format!("the server did not answer within {seconds} s; is it running and reachable?")
        };
        match driver.call(Request::Attach).recv_timeout(left()).map_err(unanswered)? {
            Ok(Response::Attached(_)) => {}
            Ok(Response::Refused(line)) => return Err(line),
            Ok(other) => return Err(format!("the engine answered {other:?}; please report it")),
            Err(errno) => return Err(format!("the server cannot be used: {errno}")),
        }
        // What the mount that made it held on the server is given up; its lease would end anyway.
        let _given_up = driver.call(Request::Detach).recv_timeout(left());
        Ok(())
    }
}
