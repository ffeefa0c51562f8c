//! Work of its own accord: looking again at what others may have changed, the lease, and the
//! removal of what nobody can see any more. One task of each kind is under way at a time.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use bytes::Bytes;
use smallvec::smallvec;

use crate::backend::redis::{Args, Command, Redis, Reply};
use crate::engine::Cx;
use crate::id::{Ino, Lane};
use crate::layout::{Outcome, Step, Work};
use crate::op::{Kind, Name};
use crate::time::{Duration, Mono};

use super::key::{DataId, Key};
use super::list::place_after;
use super::record::{Member, Stamp};
use super::{LEASE, NUMBERS, Ticket, Volume, count, decimal, scripts};

/// Stamps that are looked at together.
const VERIFIED: usize = 256;
/// Names that are looked at together.
const NAMES: u64 = 1024;
/// A directory with more names is not looked through: all its names are dropped.
const MOST_NAMES: usize = 1 << 17;
/// How often a directory that goes on changing is begun with anew.
const RESTARTS: u32 = 3;
/// Graves that are looked at together.
const GRAVES: u64 = 64;
/// Blocks that are removed together.
const BLOCKS: u64 = 512;
/// How often the queue is looked through for what others left.
const SCAN_EVERY: Duration = Duration::from_secs(300);

/// A task on its way.
#[derive(Clone, Debug)]
pub enum Task {
    /// Stamps made sure of.
    Verify(Vec<Ino>),
    /// The names in a directory.
    Look(Look),
    /// Inode numbers.
    Numbers,
    /// The lease, and graves.
    Reap {
        /// Told to be held.
        holds: Vec<Ino>,
        /// Told to be let go of.
        let_go: Vec<Ino>,
    },
    /// Blocks removed.
    Reclaim,
    /// The queue, from a cursor.
    Scan,
}

/// A directory being looked through.
#[derive(Clone, Debug)]
pub struct Look {
    dir: Ino,
    names: BTreeMap<Name, (Kind, Ino)>,
    last: Vec<u8>,
    stamp: Option<Stamp>,
    restarts: u32,
    began: Mono,
}

impl Volume {
    pub(super) fn next_task(&mut self, cx: &mut Cx<Redis>) -> Option<Work<Self>> {
        self.live.set_now(cx.now.mono);
        if !self.live.attached {
            return None;
        }
        let due = |at: Option<Mono>| at.is_some_and(|at| at <= cx.now.mono);
        if self.live.verify.is_empty() {
            // What was to be made sure of has been, by another way.
            self.live.verify_at = None;
        }
        if due(self.live.verify_at) && !self.live.verifying {
            return Some(self.verify_task(cx.now.mono));
        }
        let dir = self.live.look_again.iter().find(|(_, at)| **at <= cx.now.mono);
        if let Some((&dir, _)) = dir
            && !self.live.looking
        {
            self.live.look_again.remove(&dir);
            self.live.looking = true;
            return Some(self.look_task(Look {
                dir,
                names: BTreeMap::new(),
                last: Vec::new(),
                stamp: None,
                restarts: 0,
                began: cx.now.mono,
            }));
        }
        if self.live.read_only {
            return None;
        }
        let left = self.numbers.1.saturating_sub(self.numbers.0);
        if left < NUMBERS / 4 && !self.live.taking_numbers {
            self.live.taking_numbers = true;
            let commands = alloc::vec![self.ask_for_numbers()];
            return Some(Self::work(Lane::Meta, commands, Ticket::Task(Task::Numbers)));
        }
        if due(self.live.reap_at) && !self.live.reaping {
            return Some(self.reap_task(cx.now.mono));
        }
        if due(self.live.reclaim_at) && !self.live.reclaiming {
            return self.reclaim_task();
        }
        if due(self.live.scan_at) && !self.live.reclaiming {
            self.live.scan_at = Some(cx.now.mono.after(SCAN_EVERY));
            self.live.reclaiming = true;
            let scan = ["HSCAN", "0", "COUNT", "512"].map(|it| Bytes::from_static(it.as_bytes()));
            let [command, cursor, word, n] = scan;
            let scan = Command::plain([command, self.key(Key::Queue), cursor, word, n]);
            return Some(Self::work(Lane::Meta, alloc::vec![scan], Ticket::Task(Task::Scan)));
        }
        None
    }

    fn verify_task(&mut self, now: Mono) -> Work<Self> {
        let inos: Vec<Ino> = self.live.verify.iter().copied().take(VERIFIED).collect();
        for ino in &inos {
            self.live.verify.remove(ino);
        }
        self.live.verify_at = (!self.live.verify.is_empty()).then_some(now);
        self.live.verifying = true;
        let words = ["HMGET", "change", "nlink"].map(|it| Bytes::from_static(it.as_bytes()));
        let look = |ino: &Ino| {
            let [command, change, nlink] = words.clone();
            Command::plain([command, self.key(Key::Inode(*ino)), change, nlink])
        };
        let commands = inos.iter().map(look).collect();
        Self::work(Lane::Meta, commands, Ticket::Task(Task::Verify(inos)))
    }

    fn look_task(&self, look: Look) -> Work<Self> {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let stamp = [word("HGET"), self.key(Key::Inode(look.dir)), word("change")];
        let page = [
            word("ZRANGEBYLEX"),
            self.key(Key::Dir(look.dir)),
            place_after(&look.last),
            word("+"),
            word("LIMIT"),
            word("0"),
            decimal(NAMES),
        ];
        let commands = alloc::vec![Command::plain(stamp), Command::plain(page)];
        Self::work(Lane::Meta, commands, Ticket::Task(Task::Look(look)))
    }

    fn reap_task(&mut self, now: Mono) -> Work<Self> {
        let take = |set: &mut alloc::collections::BTreeSet<Ino>| -> Vec<Ino> {
            let some: Vec<Ino> = set.iter().copied().take(VERIFIED).collect();
            for ino in &some {
                set.remove(ino);
            }
            some
        };
        let (holds, let_go) = (take(&mut self.live.holds), take(&mut self.live.let_go));
        self.live.reaping = true;
        self.live.reap_at = Some(now.after(LEASE / 4));
        if self.live.holds.is_empty() {
            // All that is open of what was seen is held by then.
            self.live.told = self.live.seen;
        }
        let command = self.reap(LEASE, &holds, &let_go);
        let ticket = Ticket::Task(Task::Reap { holds, let_go });
        Self::work(Lane::Meta, alloc::vec![command], ticket)
    }

    /// The script that keeps this mount alive, or ends it when its lease is nothing.
    pub(super) fn reap(&self, lease: Duration, holds: &[Ino], let_go: &[Ino]) -> Command {
        let keys = [Key::Sessions, Key::Graves, Key::Queue, Key::Usage].map(|key| self.key(key));
        let mut args: Args = smallvec![
            self.keys.prefix(),
            decimal(self.mount.0),
            Bytes::from(format!("{}", lease.as_millis())),
            decimal(GRAVES),
            decimal(self.live.told),
            decimal(self.numbers.1.saturating_sub(1)),
            decimal(holds.len() as u64),
        ];
        args.extend(holds.iter().chain(let_go).map(|ino| decimal(ino.0)));
        Command::Script { script: &scripts::REAP, keys: keys.into_iter().collect(), args }
    }

    /// Removes blocks of what is in the queue, so many at a time.
    fn reclaim_task(&mut self) -> Option<Work<Self>> {
        let word = |text: &'static str| Bytes::from_static(text.as_bytes());
        let queue = self.key(Key::Queue);
        let block = u64::from(self.block);
        let mut unlink: Args = smallvec![word("UNLINK")];
        let mut done: Args = smallvec![word("HDEL"), queue.clone()];
        let mut partly: Args = smallvec![word("HSET"), queue];
        let mut room = BLOCKS;
        while room > 0
            && let Some((data, length)) = self.live.reclaim.pop_front()
        {
            let blocks = length.div_ceil(block);
            let from = blocks.saturating_sub(room);
            unlink.extend(self.blocks_of(data, from..blocks));
            room -= blocks - from;
            if from == 0 {
                done.push(decimal(data.0));
            } else {
                partly.extend([decimal(data.0), decimal(from * block)]);
                self.live.reclaim.push_front((data, from * block));
            }
        }
        if self.live.reclaim.is_empty() {
            self.live.reclaim_at = None;
        }
        if unlink.len() == 1 {
            return None;
        }
        let mut commands = alloc::vec![Command::Plain(unlink)];
        for command in [done, partly] {
            if command.len() > 2 {
                commands.push(Command::Plain(command));
            }
        }
        self.live.reclaiming = true;
        Some(Self::work(Lane::Meta, commands, Ticket::Task(Task::Reclaim)))
    }

    pub(super) fn task_done(
        &mut self,
        task: Task,
        replies: &[Reply],
        cx: &mut Cx<Redis>,
    ) -> Step<Self> {
        let error = Reply::error_among(replies);
        match task {
            Task::Verify(inos) => {
                self.live.verifying = false;
                for (ino, reply) in inos.iter().zip(replies) {
                    // An error says nothing about it.
                    if let Some([change, nlink]) = reply.as_array() {
                        let nameless = nlink.as_bytes() == Some(b"0");
                        let there = *nlink != Reply::Nil;
                        let stamp = change.as_bytes().map_or(Stamp::default(), Stamp::parse);
                        self.verified(*ino, there.then_some((stamp, nameless)), cx);
                    }
                }
            }
            Task::Look(look) => return self.looked(look, replies, cx),
            Task::Numbers => {
                self.live.taking_numbers = false;
                self.take_numbers(replies.first());
            }
            Task::Reap { holds, let_go } => {
                self.live.reaping = false;
                if let Some(line) = error {
                    self.live.holds.extend(holds);
                    self.live.let_go.extend(let_go);
                    return Step::Fail(self.refused(line, "keeping the mount's lease"));
                }
                self.reaped(replies.first(), cx);
                // Where nothing is told, waiters find out this way.
                if !self.live.is_live() {
                    cx.unlocked_all();
                }
            }
            Task::Reclaim => {
                self.live.reclaiming = false;
                if let Some(line) = error {
                    return Step::Fail(self.refused(line, "removing deleted contents"));
                }
            }
            Task::Scan => {
                self.live.reclaiming = false;
                self.take_queue(replies.first(), cx.now.mono);
            }
        }
        Step::Done(Outcome::Done)
    }

    fn reaped(&mut self, reply: Option<&Reply>, cx: &mut Cx<Redis>) {
        let now = cx.now.mono;
        let answer = reply.and_then(Reply::as_array).unwrap_or_default();
        let list = |at: usize| answer.get(at).and_then(Reply::as_array).unwrap_or_default();
        let (freed, unseen) = (list(1), list(2));
        for pair in freed.chunks_exact(2) {
            if let (Some(data), Some(length)) = (count(pair.first()), count(pair.get(1))) {
                self.live.reclaim(DataId(data), length, now);
            }
        }
        self.live.seen = count(answer.get(3)).unwrap_or(0);
        for pair in unseen.chunks_exact(2) {
            if let (Some(ino), Some(number)) = (count(pair.first()), count(pair.get(1))) {
                self.see_grave(Ino(ino), cx);
                self.live.seen = number;
            }
        }
        let told = self.live.holds.is_empty() && self.live.let_go.is_empty() && unseen.is_empty();
        if !told || count(answer.get(4)) == Some(1) {
            // Whoever waits for this mount waits no longer than that.
            self.live.reap_at = Some(now);
        }
    }

    /// What the queue holds that this mount has not put there, or has forgotten.
    fn take_queue(&mut self, reply: Option<&Reply>, now: Mono) {
        let pairs = reply.and_then(Reply::as_array).and_then(|it| it.get(1)?.as_array());
        let pairs = pairs.unwrap_or_default();
        for pair in pairs.chunks_exact(2) {
            if let (Some(data), Some(length)) = (count(pair.first()), count(pair.get(1))) {
                self.live.reclaim(DataId(data), length, now);
            }
        }
        if pairs.len() >= 512 {
            self.live.scan_at = Some(now.after(Duration::from_secs(1)));
        }
    }

    fn looked(&mut self, mut look: Look, replies: &[Reply], cx: &mut Cx<Redis>) -> Step<Self> {
        let dir = look.dir;
        let (Some(change), Some(page)) =
            (replies.first(), replies.get(1).and_then(Reply::as_array))
        else {
            self.live.looking = false;
            return Step::Done(Outcome::Done);
        };
        let stamp = change.as_bytes().map_or(Stamp::default(), Stamp::parse);
        if look.stamp.is_some_and(|before| before != stamp) && look.restarts < RESTARTS {
            look.restarts += 1;
            look.names.clear();
            look.last.clear();
            look.stamp = None;
            return Step::Work(self.look_task(look));
        }
        let whole = *look.stamp.get_or_insert(stamp) == stamp;
        for bytes in page.iter().filter_map(Reply::as_bytes) {
            // What is no entry is for fsck; whoever looks it up is told.
            if let Ok(member) = Member::parse(dir, bytes) {
                look.names.insert(member.name, (member.kind, member.ino));
            }
            look.last = bytes.to_vec();
        }
        if page.len() as u64 == NAMES && look.names.len() < MOST_NAMES {
            return Step::Work(self.look_task(look));
        }
        self.live.looking = false;
        let seen_all = (page.len() as u64) < NAMES;
        let changed = if seen_all {
            self.tree.looked_again(dir, look.names, whole)
        } else {
            self.tree.take_names(dir)
        };
        self.names_changed(dir, changed, cx);
        if whole
            && self.is_foreign(stamp)
            && let Some(node) = self.tree.get_mut(dir)
        {
            node.stamp = stamp;
        }
        // Whoever looks for half of the time gets to other things too.
        let pause = cx.now.mono.since(look.began);
        if let Some(at) = self.live.look_again.get_mut(&dir) {
            *at = (*at).max(cx.now.mono.after(pause));
        }
        Step::Done(Outcome::Done)
    }
}
