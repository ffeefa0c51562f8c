//! What a log of a session must know of this layout.

use crate::backend::redis::{Command, Reply};
use crate::replay::{Recorded, zeros};
use crate::time::Now;

use super::data::WRITE_HEAD;
use super::{Keys, Options, RESERVED, scripts};

impl Recorded for Keys {
    const NAME: &'static str = "keys";
    type Options = Options;

    fn with(options: Options, now: Now) -> Self {
        Keys::new(options, now)
    }

    fn blank_command(command: &Command) -> Command {
        let mut command = command.clone();
        match &mut command {
            Command::Plain(args) if args[0] == "SETRANGE" => args[3] = zeros(args[3].len()),
            Command::Script { script, args, .. } if *script == &scripts::WRITE => {
                // Offset and data in turn, after what describes the file.
                for data in args.iter_mut().skip(WRITE_HEAD + 1).step_by(2) {
                    *data = zeros(data.len());
                }
            }
            _ => {}
        }
        command
    }

    fn asks_contents(command: &Command) -> bool {
        match command {
            Command::Plain(args) => {
                // The only hashes of our own that are asked for a field hold records.
                args[0] == "GETRANGE" || (args[0] == "HGET" && !args[1].starts_with(RESERVED))
            }
            Command::Script { script, .. } => *script == &scripts::READ,
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
