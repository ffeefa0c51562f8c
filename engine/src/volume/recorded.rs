//! What a log of a session must know of this layout.

use crate::backend::redis::{Command, Reply};
use crate::replay::{Recorded, zeros};
use crate::time::Now;

use super::data::WRITE_HEAD;
use super::{Options, Volume, scripts};

impl Recorded for Volume {
    const NAME: &'static str = "volume";
    type Options = Options;

    fn with(options: Options, _now: Now) -> Self {
        Volume::new(options)
    }

    fn blank_command(command: &Command) -> Command {
        let mut command = command.clone();
        match &mut command {
            Command::Plain(args) if args[0] == "SETRANGE" => args[3] = zeros(args[3].len()),
            Command::Plain(args) if args[0] == "SET" => args[2] = zeros(args[2].len()),
            Command::Script { script, args, .. } if *script == &scripts::WRITE => {
                // Block, place and data in turn, after what describes the file; of what is put
                // behind it, after the token too.
                let head = WRITE_HEAD + if args[0] == "a" { 2 } else { 0 };
                for data in args.iter_mut().skip(head + 2).step_by(3) {
                    *data = zeros(data.len());
                }
            }
            _ => {}
        }
        command
    }

    fn asks_contents(command: &Command) -> bool {
        match command {
            Command::Plain(args) => args[0] == "GETRANGE" || args[0] == "GET",
            Command::Script { .. } => false,
        }
    }

    fn weigh(reply: &Reply) -> usize {
        reply.weight()
    }

    fn blank_reply(reply: &Reply) -> Reply {
        match reply {
            Reply::Bulk(bytes) => Reply::Bulk(zeros(bytes.len())),
            other => other.clone(),
        }
    }
}
