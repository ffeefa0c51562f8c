//! The table: one row a measure, one group of columns a target, ratios beside the rates.

use std::fmt;

use crate::Target;
use crate::server::Over;

/// What bounds a measure on a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `SET` of 100 bytes.
    Set,
    /// `GET` of 100 bytes.
    Get,
    /// `EVALSHA` of a script that checks one key and sets another.
    Script,
    /// `SETRANGE` of 1 MiB, four under way.
    WriteMib,
    /// `GETRANGE` of 1 MiB, four under way.
    ReadMib,
    /// `SETRANGE` of 4 KiB.
    WritePage,
    /// `GETRANGE` of 4 KiB.
    ReadPage,
    /// `SCAN` of all keys with COUNT 1000, by a script on the server.
    Scan,
    /// `insert` of a small document into a mongod.
    Insert,
    /// `find` of it.
    Find,
    /// `update` of it.
    Update,
    /// `insert` of a chunk of 255 KiB.
    InsertChunk,
    /// `find` of it.
    FindChunk,
    /// Nothing that could be told.
    None,
}

impl Limit {
    fn name(self) -> &'static str {
        match self {
            Limit::Set => "SET 100 B",
            Limit::Get => "GET 100 B",
            Limit::Script => "EVALSHA small",
            Limit::WriteMib => "SETRANGE 1 MiB x4",
            Limit::ReadMib => "GETRANGE 1 MiB x4",
            Limit::WritePage => "SETRANGE 4 KiB",
            Limit::ReadPage => "GETRANGE 4 KiB",
            Limit::Scan => "SCAN in a script",
            Limit::Insert => "insert a small document",
            Limit::Find => "find it",
            Limit::Update => "update it",
            Limit::InsertChunk => "insert 255 KiB, MiB",
            Limit::FindChunk => "find 255 KiB, MiB",
            Limit::None => "",
        }
    }
}

/// What a figure is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// What was done.
    pub(crate) name: &'static str,
    /// What the figure counts.
    pub(crate) unit: &'static str,
    /// What bounds it.
    pub(crate) limit: Limit,
}

#[derive(Debug)]
struct Row {
    measure: Measure,
    values: Vec<Option<f64>>,
}

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Table {
    targets: Vec<Target>,
    rows: Vec<Row>,
    limits: Vec<(Limit, Option<f64>, Option<f64>)>,
    /// Of a replica set of one member, and of a standalone.
    mongo_limits: Vec<(Limit, Option<f64>, Option<f64>)>,
}

impl Table {
    /// An empty one, with columns for these targets.
    pub(crate) fn new(targets: &[Target]) -> Self {
        Table {
            targets: targets.to_vec(),
            rows: Vec::new(),
            limits: Vec::new(),
            mongo_limits: Vec::new(),
        }
    }

    /// A figure of a target.
    pub(crate) fn add(&mut self, target: Target, measure: Measure, value: f64) {
        let Some(column) = self.targets.iter().position(|it| *it == target) else { return };
        let known = self.rows.iter().position(|row| row.measure.name == measure.name);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row { measure, values: vec![None; self.targets.len()] });
            self.rows.len() - 1
        });
        self.rows[at].values[column] = Some(value);
    }

    /// What redis-benchmark reached.
    pub(crate) fn limit(&mut self, limit: Limit, over: Over, value: f64) {
        put(&mut self.limits, limit, over == Over::Tcp, value);
    }

    /// What bare commands to a mongod reached.
    pub(crate) fn mongo_limit(&mut self, limit: Limit, set: bool, value: f64) {
        put(&mut self.mongo_limits, limit, set, value);
    }

    fn limit_of(&self, limit: Limit, target: Target) -> Option<f64> {
        if matches!(target, Target::Gridfs | Target::GridfsAlone) {
            // What comes nearest to what the rows name of Redis.
            let limit = match limit {
                Limit::Set | Limit::Script => Limit::Insert,
                Limit::Get => Limit::Find,
                Limit::WriteMib => Limit::InsertChunk,
                Limit::ReadMib => Limit::FindChunk,
                _ => return None,
            };
            let (_, set, alone) = self.mongo_limits.iter().find(|(it, ..)| *it == limit)?;
            return if target == Target::Gridfs { *set } else { *alone };
        }
        let (_, tcp, unix) = self.limits.iter().find(|(it, ..)| *it == limit)?;
        match target {
            Target::RedisTcp | Target::VolumeTcp | Target::JuicefsTcp => *tcp,
            Target::RedisUnix | Target::VolumeUnix | Target::JuicefsUnix => *unix,
            _ => None,
        }
    }

    /// What the same layout reaches without a server.
    fn mem_of(&self, row: &Row, target: Target) -> Option<f64> {
        let ceiling = match target {
            Target::VolumeTcp | Target::VolumeUnix => Target::MemVolume,
            Target::Gridfs | Target::GridfsAlone | Target::Given => Target::MemGridfs,
            _ => Target::Mem,
        };
        self.value_of(row, ceiling)
    }

    fn value_of(&self, row: &Row, target: Target) -> Option<f64> {
        let column = self.targets.iter().position(|it| *it == target)?;
        row.values[column]
    }

    /// The rival that a target is measured beside, when it is.
    fn rival_of(&self, target: Target) -> Option<Target> {
        let rival = match target {
            Target::VolumeTcp => Target::JuicefsTcp,
            Target::VolumeUnix => Target::JuicefsUnix,
            _ => return None,
        };
        self.targets.contains(&rival).then_some(rival)
    }
}

/// Puts a rate into the first of two columns or the second.
fn put(limits: &mut Vec<(Limit, Option<f64>, Option<f64>)>, limit: Limit, first: bool, value: f64) {
    let known = limits.iter().position(|(it, ..)| *it == limit);
    let at = known.unwrap_or_else(|| {
        limits.push((limit, None, None));
        limits.len() - 1
    });
    match first {
        true => limits[at].1 = Some(value),
        false => limits[at].2 = Some(value),
    }
}

fn heading(target: Target) -> &'static str {
    match target {
        Target::RedisTcp => "redis-tcp",
        Target::RedisUnix => "redis-unix",
        Target::Mem => "mem",
        Target::VolumeTcp => "volume-tcp",
        Target::VolumeUnix => "volume-unix",
        Target::MemVolume => "mem-volume",
        Target::JuicefsTcp => "juicefs-tcp",
        Target::JuicefsUnix => "juicefs-unix",
        Target::MemGridfs => "mem-gridfs",
        Target::Gridfs => "gridfs",
        Target::GridfsAlone => "gridfs-alone",
        Target::Given => "given",
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rows.is_empty() {
            write!(f, "{:<36} {:>7}", "", "")?;
            for &target in &self.targets {
                write!(f, " {:>11}", heading(target))?;
                if target.is_kept() {
                    write!(f, " {:>6} {:>6}", "/limit", "/mem")?;
                }
                if self.rival_of(target).is_some() {
                    write!(f, " {:>6}", "/rival")?;
                }
            }
            writeln!(f, "  limit")?;
        }
        for row in &self.rows {
            write!(f, "{:<36} {:>7}", row.measure.name, row.measure.unit)?;
            for (&target, &value) in self.targets.iter().zip(&row.values) {
                write!(f, " {:>11}", figure(value))?;
                if target.is_kept() {
                    let limit = self.limit_of(row.measure.limit, target);
                    write!(f, " {:>6}", ratio(value, limit))?;
                    write!(f, " {:>6}", ratio(value, self.mem_of(row, target)))?;
                }
                if let Some(rival) = self.rival_of(target) {
                    write!(f, " {:>6}", ratio(value, self.value_of(row, rival)))?;
                }
            }
            writeln!(f, "  {}", row.measure.limit.name())?;
        }
        if !self.limits.is_empty() {
            writeln!(
                f,
                "\n{:<36} {:>11} {:>11}",
                "limits, one client, each a second", "tcp", "unix"
            )?;
        }
        for (limit, tcp, unix) in &self.limits {
            writeln!(f, "{:<36} {:>11} {:>11}", limit.name(), figure(*tcp), figure(*unix))?;
        }
        if !self.mongo_limits.is_empty() {
            let heading = "limits of mongod, one connection";
            writeln!(f, "\n{heading:<36} {:>11} {:>11}", "set of one", "standalone")?;
        }
        for (limit, set, alone) in &self.mongo_limits {
            writeln!(f, "{:<36} {:>11} {:>11}", limit.name(), figure(*set), figure(*alone))?;
        }
        Ok(())
    }
}

/// Three digits or more, thousands set apart.
fn figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn ratio(value: Option<f64>, of: Option<f64>) -> String {
    match (value, of) {
        (Some(value), Some(of)) if of > 0.0 => format!("{:.2}", value / of),
        _ => "-".to_owned(),
    }
}
