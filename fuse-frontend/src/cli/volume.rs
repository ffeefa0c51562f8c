//! `dbmount fsck`, `gc` and `info`: what is done to a volume without mounting it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use dbmount_engine::engine::Progress;
use dbmount_engine::volume::fsck::{Fsck, Repair, Report};
use dbmount_engine::volume::gc::Gc;
use dbmount_engine::volume::info::{Figures, Info};
use dbmount_engine::volume::key::Keyspace;
use dbmount_engine::volume::tool::Tool;
use dbmount_engine::volume::{self};
use dbmount_transport_redis::{Endpoint, Secret};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

use super::Failure;
use super::args::{FsckArgs, InfoArgs, VolumeArgs};
use super::mount::choose_password;
use crate::handoff::PASSWORD_VARIABLE;
use crate::machine::wall;
use crate::source::Source;

/// fsck(8): file system errors corrected.
const CORRECTED: u8 = 1;
/// fsck(8): file system errors left uncorrected.
const UNCORRECTED: u8 = 4;
/// fsck(8): operational error.
const OPERATIONAL: u8 = 8;
/// fsck(8): usage or syntax error.
pub(super) const USAGE: u8 = 16;

/// A volume on its server.
struct Place {
    shown: String,
    endpoint: Endpoint,
    keys: Keyspace,
    timeout: Duration,
}

impl Place {
    fn find(args: &VolumeArgs) -> Result<Place, Failure> {
        let source = Source::parse(&args.source).map_err(Failure::Usage)?;
        let Source::Volume(url) = &source else {
            return Err(Failure::Usage(format!(
                "{source} is no volume; name one: redis://HOST/DB?volume=NAME"
            )));
        };
        let mut endpoint: Endpoint =
            url.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
        let variable = std::env::var_os(PASSWORD_VARIABLE);
        if let Some(password) = choose_password(args.password_file.as_ref(), variable, &source)? {
            endpoint.set_password(Secret::new(password.as_str()));
        }
        let name = endpoint.volume.clone().unwrap_or_default();
        Ok(Place {
            shown: source.to_string(),
            endpoint,
            keys: Keyspace::new(&name).map_err(Failure::Usage)?,
            timeout: Duration::from_secs(u64::from(args.timeout)),
        })
    }

    fn run<T: Tool + Send + 'static>(&self, tool: T, doing: &'static str) -> Result<T, Failure> {
        let options = volume::Options::new(self.keys.clone());
        let connections = crate::redis::volume_options(&options);
        let mut bar = Bar { doing, bar: None };
        let endpoint = self.endpoint.clone();
        let ended = crate::tool::run(endpoint, connections, tool, self.timeout, |it| bar.show(it));
        bar.end();
        ended.map_err(|line| Failure::Failed(format!("{}: {line}", self.shown)))
    }
}

/// How far it is, where somebody watches.
struct Bar {
    doing: &'static str,
    bar: Option<ProgressBar>,
}

impl Bar {
    fn show(&mut self, progress: &Progress) {
        if !io::stderr().is_terminal() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = progress.total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let template = match progress.total {
                Some(_) => "{msg} {wide_bar} {percent:>3} %",
                None => "{spinner} {msg} {human_pos}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(self.doing);
            bar
        });
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.done);
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Checks a volume and, if asked, mends it. The exit status is that of fsck(8).
pub(super) fn fsck(args: &FsckArgs) -> ExitCode {
    match check(args) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            eprintln!("dbmount: {failure}");
            ExitCode::from(match failure {
                Failure::Usage(_) => USAGE,
                Failure::Failed(_) => OPERATIONAL,
            })
        }
    }
}

fn check(args: &FsckArgs) -> Result<u8, Failure> {
    let place = Place::find(&args.volume)?;
    let report = look(&place)?;
    for finding in &report.findings {
        let left = if finding.fix.is_none() { "; cannot be mended" } else { "" };
        println!("{finding}{left}");
    }
    summary(&place, &report);
    if report.findings.is_empty() {
        return Ok(0);
    }
    let found = report.findings.len();
    let mendable = report.findings.iter().filter(|it| it.fix.is_some()).count();
    if !args.repair {
        if mendable > 0 {
            println!("{found} found; --repair mends {mendable} of them");
        }
        return Ok(UNCORRECTED);
    }
    if !report.mounts.is_empty() && !args.force {
        return Err(Failure::Failed(format!(
            "{}: {} alive; unmount first (a mount that died counts for a minute and a half), or \
             use --force when you know that it is dead. Nothing was changed",
            place.shown,
            mounts(report.mounts.len()),
        )));
    }
    place.run(Repair::new(&report.findings), "mending")?;
    let after = look(&place)?;
    for finding in &after.findings {
        println!("left: {finding}");
    }
    println!("{found} found, {} left", after.findings.len());
    Ok(if after.findings.is_empty() { CORRECTED } else { UNCORRECTED })
}

fn look(place: &Place) -> Result<Report, Failure> {
    let fsck = Fsck::new(place.keys.clone(), wall(SystemTime::now()));
    Ok(place.run(fsck, "checking")?.into_report())
}

fn summary(place: &Place, report: &Report) {
    println!(
        "{}: {} inodes, {} of them directories; {} in files, {} blocks{}",
        place.keys.name(),
        HumanCount(report.inodes),
        HumanCount(report.dirs),
        HumanBytes(report.bytes),
        HumanCount(report.blocks),
        if report.findings.is_empty() { "; clean" } else { "" },
    );
    if !report.mounts.is_empty() {
        println!(
            "{} alive; what changed while it was read may be named without being wrong",
            mounts(report.mounts.len())
        );
    }
}

fn mounts(n: usize) -> String {
    if n == 1 { "1 mount is".to_owned() } else { format!("{n} mounts are") }
}

/// Reclaims at once what mounts reclaim in the background.
pub(super) fn gc(args: &VolumeArgs) -> Result<(), Failure> {
    let place = Place::find(args)?;
    let (contents, blocks, alive) = place.run(Gc::new(place.keys.clone()), "removing")?.done();
    println!(
        "{}: removed {} blocks of {} deleted or rewritten files",
        place.keys.name(),
        HumanCount(blocks),
        HumanCount(contents)
    );
    if alive > 0 {
        println!("{} alive: files that are still open somewhere were left to it", mounts(alive));
    }
    Ok(())
}

/// Tells what a volume is like.
pub(super) fn info(args: &InfoArgs) -> Result<(), Failure> {
    let place = Place::find(&args.volume)?;
    let figures = place.run(Info::new(place.keys.clone()), "asking")?.into_figures();
    let Some(figures) = figures else {
        return Err(Failure::Failed(format!("{}: no answer", place.shown)));
    };
    if args.json {
        json(&place, &figures)
    } else {
        table(&place, &figures)
    }
    Ok(())
}

fn table(place: &Place, figures: &Figures) {
    let made = &figures.superblock;
    let limit = |n: u64, shown: String| if n == 0 { "no limit".to_owned() } else { shown };
    println!("volume    {} (format {})", place.keys.name(), made.version);
    println!("uuid      {}", made.uuid);
    println!("created   {} s since the epoch", made.created.parts().0);
    println!("block     {}", HumanBytes(u64::from(made.block)));
    let capacity = limit(made.capacity, HumanBytes(made.capacity).to_string());
    println!("files     {} (limit: {capacity})", HumanBytes(figures.bytes));
    let inodes = limit(made.inodes, HumanCount(made.inodes).to_string());
    println!("inodes    {} (limit: {inodes})", HumanCount(figures.inodes));
    println!("open      {} without a name", HumanCount(figures.graves));
    println!("to remove {} pieces of contents", HumanCount(figures.queue));
    let alive: Vec<String> = figures.sessions.alive().map(|it| it.0.to_string()).collect();
    let dead = figures.sessions.leases.len() - alive.len();
    let listed =
        if alive.is_empty() { String::new() } else { format!(" (#{})", alive.join(", #")) };
    println!("mounts    {}{listed} alive, {dead} dead", alive.len());
}

/// One object; numbers are bytes, inodes, or nanoseconds since the epoch.
fn json(place: &Place, figures: &Figures) {
    let made = &figures.superblock;
    let alive: Vec<String> = figures.sessions.alive().map(|it| it.0.to_string()).collect();
    // A volume's name and uuid have no character that JSON escapes.
    println!(
        "{{\"volume\":\"{}\",\"format\":{},\"uuid\":\"{}\",\"created\":{},\"block\":{},\
         \"capacity\":{},\"inode_limit\":{},\"bytes\":{},\"inodes\":{},\"unnamed\":{},\
         \"to_remove\":{},\"mounts\":[{}]}}",
        place.keys.name(),
        made.version,
        made.uuid.escape_default(),
        made.created.0,
        made.block,
        made.capacity,
        made.inodes,
        figures.bytes,
        figures.inodes,
        figures.graves,
        figures.queue,
        alive.join(",")
    );
}
