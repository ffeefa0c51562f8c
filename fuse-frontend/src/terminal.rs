//! What the user sees while a mount comes up: notes, and progress when there is a terminal.

use std::io::{self, IsTerminal};
use std::time::Instant;

use dbmount_engine::engine::Progress;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::session::Report;

/// Shows on standard error.
#[derive(Debug)]
pub struct Terminal {
    bar: Option<ProgressBar>,
    started: Instant,
    quiet: bool,
}

impl Terminal {
    /// Shows progress if standard error is a terminal, and nothing but errors when `quiet`.
    #[must_use]
    pub fn new(quiet: bool) -> Self {
        Terminal { bar: None, started: Instant::now(), quiet }
    }

    /// Whether somebody is there to watch progress.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    fn text(&self, progress: &Progress) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        // Rounded to whole keys a second.
        let rate = (progress.done as f64 / seconds) as u64;
        let of = match progress.total {
            Some(total) => format!(" of {}", HumanCount(total)),
            None => String::new(),
        };
        format!(
            "reading names: {}{of} keys, {} keys/s",
            HumanCount(progress.done),
            HumanCount(rate)
        )
    }
}

impl Report for Terminal {
    fn progress(&mut self, progress: &Progress) {
        if !self.is_watched() || progress.done == 0 {
            return;
        }
        if progress.finished {
            return self.close();
        }
        let text = self.text(progress);
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(progress.total, ProgressDrawTarget::stderr());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_position(progress.done);
        bar.set_message(text);
    }

    fn note(&mut self, line: &str) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("dbmount: {line}")),
            None => eprintln!("dbmount: {line}"),
        }
    }

    fn ready(&mut self) -> bool {
        true
    }

    fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close();
    }
}
