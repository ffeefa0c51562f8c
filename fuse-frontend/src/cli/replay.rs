//! `dbmount replay`: plays a recorded session again, without a server, and compares.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use dbmount_engine::replay::{
    Decoder, Entry, Head, Player, Recipe, Recorded, Visit, trace_input, trace_output,
};

use super::Failure;
use super::args::ReplayArgs;
use crate::mountpoint::plain;

/// How much is read at once.
const PIECE: usize = 256 << 10;
/// The longest line of a trace, in bytes.
const LINE: usize = 2000;

/// Plays a log.
pub(super) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let shown = args.file.display();
    let failed = |error: &io::Error| Failure::Failed(format!("{shown}: {}", plain(error)));
    let file = File::open(&args.file).map_err(|error| failed(&error))?;
    let mut log = Log { file, decoder: Decoder::new(), piece: vec![0; PIECE] };
    let unread = |error: &dyn std::fmt::Display| Failure::Failed(format!("{shown}: {error}"));
    let head = loop {
        match log.decoder.head().map_err(|error| unread(&error))? {
            Some(head) => break head,
            None => log.feed().map_err(|error| failed(&error))?,
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let play = Play { args, head: &head, log, out: &mut out };
    let played = head.visit(play).map_err(|error| unread(&error))?;
    // A reader that has seen enough closes the pipe.
    let _shown = out.flush();
    played
}

/// A log in a file.
struct Log {
    file: File,
    decoder: Decoder,
    piece: Vec<u8>,
}

impl Log {
    fn feed(&mut self) -> io::Result<()> {
        match self.file.read(&mut self.piece)? {
            0 => self.decoder.end(),
            read => self.decoder.feed(&self.piece[..read]),
        }
        Ok(())
    }
}

struct Play<'a, W> {
    args: &'a ReplayArgs,
    head: &'a Head,
    log: Log,
    out: &'a mut W,
}

impl<W: Write> Visit for Play<'_, W> {
    type Done = Result<(), Failure>;

    fn visit<L: Recorded>(self, recipe: Recipe<L>) -> Result<(), Failure> {
        let Play { args, head, mut log, out } = self;
        let shown = args.file.display();
        let mut player = Player::new(&recipe);
        let start = recipe.now.mono;
        let until = args.until.unwrap_or(u64::MAX);
        // Whoever reads this through a pipe may stop reading.
        let mut say = |line: &str| {
            let _shown = writeln!(out, "{line}");
        };
        if args.trace {
            let contents = if head.contents { "with" } else { "without" };
            say(&format!(
                "{} layout, by {}, {contents} contents of files",
                head.layout, head.program
            ));
            say(&format!("{:?} {:?}", recipe.config, recipe.options));
        }
        let mut open = false;
        let torn = loop {
            let entry = log.decoder.next().map_err(|error| {
                Failure::Failed(format!("{shown}: after input {}: {error}", player.inputs()))
            })?;
            match entry {
                Entry::More => {
                    let fed = log.feed();
                    fed.map_err(|error| Failure::Failed(format!("{shown}: {}", plain(&error))))?;
                }
                Entry::Input(now, input) => {
                    if player.inputs() == until {
                        break 0;
                    }
                    open = true;
                    if args.trace {
                        let seconds = now.mono.since(start).as_secs_f64();
                        let text = cut(trace_input(&input));
                        say(&format!("{:>6} {seconds:>11.6} {text}", player.inputs() + 1));
                    }
                    let outputs = player.input(now, input);
                    if args.trace {
                        for output in outputs {
                            say(&format!("{:>19} {}", "->", cut(trace_output(output))));
                        }
                    }
                }
                Entry::Outputs(recorded) => {
                    open = false;
                    if let Err(difference) = player.compare(&recorded) {
                        let text = difference.to_string();
                        return Err(Failure::Failed(format!("{shown}: {}", text.trim_end())));
                    }
                }
                Entry::End { torn } => break torn,
            }
        };
        say(&format!(
            "{shown}: {} inputs of the {} layout played, and everything came out as recorded",
            player.inputs(),
            head.layout
        ));
        if open {
            say("what came of the last input was not recorded: the mount ended there");
        }
        if torn > 0 {
            say(&format!("the log is torn: its last {torn} bytes are no whole frame"));
        }
        Ok(())
    }
}

fn cut(mut line: String) -> String {
    if line.len() > LINE {
        let at = (0..=LINE).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
        let more = line.len() - at;
        line.truncate(at);
        line.push_str(&format!("… ({more} bytes more)"));
    }
    line
}
