//! Timing work, medians, and ending early when the user asks to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on SIGINT and SIGTERM make [`check`] fail, so that everything is taken down in order.
pub(crate) fn watch_signals() -> Result<(), String> {
    let flag = STOP.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Fails when the user has asked to end.
pub(crate) fn check() -> Result<(), String> {
    match STOP.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err("interrupted".to_owned()),
        _ => Ok(()),
    }
}

/// Does `work` for each number below `count`; how often in a second.
pub(crate) fn each(
    count: u32,
    work: impl FnMut(u32) -> std::io::Result<()>,
) -> Result<f64, String> {
    each_within(count, Duration::MAX, work)
}

/// The same, and ends when the time is up: for what may be very slow.
pub(crate) fn each_within(
    count: u32,
    limit: Duration,
    mut work: impl FnMut(u32) -> std::io::Result<()>,
) -> Result<f64, String> {
    let start = Instant::now();
    let mut done = 0;
    while done < count && start.elapsed() < limit {
        check()?;
        work(done).map_err(|error| format!("number {done}: {error}"))?;
        done += 1;
    }
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}

/// How often in a second something happened that took from `start` to now.
pub(crate) fn rate(count: u32, start: Instant) -> f64 {
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// The samples of several measures, in the order in which they first came.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<(&'static str, Vec<f64>)>);

impl Samples {
    /// One more sample of a measure.
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name, vec![value])),
        }
    }

    /// The median of each.
    pub(crate) fn medians(self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.into_iter().map(|(name, values)| (name, median(values)))
    }
}

/// The middle one; the mean of the middle two of an even number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

/// Numbers that look random and are the same in every run (xorshift64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    /// One below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.below(u64::MAX).to_le_bytes());
        }
        out.truncate(len);
        out
    }
}
