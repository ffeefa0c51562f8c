//! The twins of `commit.lua` and `retree.lua`: apply a plan, or rename many keys.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use bytes::Bytes;

use super::super::text::{decimal, parse_i64};
use super::place::{Arguments, Place, What, patch};
use super::{ScriptContext, malformed, text};
use crate::backend::redis::Reply;
use crate::keys::RESERVED;

/// `retree.lua`
pub(super) fn retree(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let arguments = Arguments::new(keys, args, 0);
    let last = i64::try_from(keys.len()).unwrap_or(i64::MAX);
    if !vacant(s, &arguments, 1, last, None)? {
        return Ok(Reply::Int(-1));
    }
    let own = args.first().and_then(|own| parse_i64(own)).unwrap_or(0);
    let version = args.get(1).ok_or_else(|| malformed("no version"))?;
    Ok(Reply::Int(rename_all(s, &arguments, 1, last, own, version)?))
}

/// The pairs of keys from `first` to `last`.
fn pairs<'a>(
    arguments: &Arguments<'a>,
    first: i64,
    last: i64,
) -> Result<Vec<(i64, &'a Bytes, &'a Bytes)>, Reply> {
    let mut pairs = Vec::new();
    let mut n = first;
    while n <= last {
        let pair = arguments.nth(n).zip(arguments.nth(n.saturating_add(1)));
        let (from, to) = pair.ok_or_else(|| malformed("no such key"))?;
        pairs.push((n, from, to));
        n += 2;
    }
    Ok(pairs)
}

/// Whether no target exists, but for one that goes away before.
fn vacant(
    s: &mut ScriptContext<'_>,
    arguments: &Arguments<'_>,
    first: i64,
    last: i64,
    except: Option<&Bytes>,
) -> Result<bool, Reply> {
    let mut pairs = pairs(arguments, first, last)?.into_iter();
    let taken = |(_, from, to): (i64, &Bytes, &Bytes)| {
        except != Some(to) && s.cx.exists(from) && s.cx.exists(to)
    };
    Ok(!pairs.any(taken))
}

fn rename_all(
    s: &mut ScriptContext<'_>,
    arguments: &Arguments<'_>,
    first: i64,
    last: i64,
    own: i64,
    version: &Bytes,
) -> Result<i64, Reply> {
    let mut renamed = 0;
    for (n, from, to) in pairs(arguments, first, last)? {
        let kind = s.typeof_key(Some(from));
        if kind != "none" && !(n == own && kind == "hash") {
            s.redis("RENAME", &[from, to])?;
            if kind == "hash" && to.strip_prefix(RESERVED).is_some_and(|it| it.starts_with(b"a:")) {
                s.redis("HSET", &[to, &Bytes::from_static(b"/v"), version])?;
            }
            renamed += 1;
        }
    }
    Ok(renamed)
}

/// `commit.lua`
pub(super) fn commit(
    s: &mut ScriptContext<'_>,
    keys: &[Bytes],
    args: &[Bytes],
) -> Result<Reply, Reply> {
    let session = keys.first().ok_or_else(|| malformed("no session"))?;
    let [slot, serial, keep, version, ..] = args else {
        return Err(malformed("too few arguments"));
    };
    let remembered = !session.is_empty();
    if remembered && s.redis("HGET", &[session, slot])? == Reply::Bulk(serial.clone()) {
        return Ok(Reply::Array([text("done")].into()));
    }
    let arguments = Arguments::new(keys, args, 4);
    let (touched, order, places) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut commit = Commit { s, arguments, version, touched, order, places };
    let mut step = 0;
    while commit.arguments.peek().is_some() {
        let word = commit.arguments.arg()?;
        match commit.check(word)? {
            Some(true) => step += 1,
            Some(false) => {
                return Ok(Reply::Array([text("no"), Reply::Int(step + 1)].into()));
            }
            None => commit.change(word)?,
        }
    }
    let Commit { touched, order, places, .. } = commit;
    if remembered {
        s.redis("HSET", &[session, slot, serial])?;
        s.redis("PEXPIRE", &[session, keep])?;
    }
    let mut answer = Vec::from([text("ok"), Reply::Bulk(places.into())]);
    for n in order {
        if touched.get(&n) == Some(&true) {
            let side = Arguments::new(keys, args, 0).nth(n);
            let version = s.bump(side.ok_or_else(|| malformed("no such key"))?, Some(version))?;
            answer.extend([Reply::Int(n), Reply::Int(version)]);
        }
    }
    Ok(Reply::Array(answer))
}

/// A plan being applied.
struct Commit<'c, 's, 'a> {
    s: &'c mut ScriptContext<'s>,
    arguments: Arguments<'a>,
    /// At which the count of changes of a new side hash starts.
    version: &'a Bytes,
    /// The side hashes that were named, and whether they were changed.
    touched: BTreeMap<i64, bool>,
    /// The same in the order in which they were named.
    order: Vec<i64>,
    /// A letter for every place a value was put to or taken from.
    places: Vec<u8>,
}

/// The letter for a place.
fn letter(what: Option<What>) -> u8 {
    match what {
        None => b'-',
        Some(What::String) => b's',
        Some(What::Field) => b'f',
        Some(What::Collection) => b'c',
    }
}

impl<'a> Commit<'_, '_, 'a> {
    /// The side hash that the next argument points to, as its index.
    fn side(&mut self) -> Result<i64, Reply> {
        let n = self.arguments.number()?;
        if n > 0 && !self.touched.contains_key(&n) {
            self.touched.insert(n, false);
            self.order.push(n);
        }
        Ok(n)
    }

    fn nth(&self, n: i64) -> Result<&'a Bytes, Reply> {
        self.arguments.nth(n).ok_or_else(|| malformed("no such key"))
    }

    fn record(&mut self, side: i64, name: &Bytes) -> Result<Option<Bytes>, Reply> {
        if side <= 0 {
            return Ok(None);
        }
        let key = self.nth(side)?;
        Ok(match self.s.redis("HGET", &[key, name])? {
            Reply::Bulk(record) => Some(record),
            _ => None,
        })
    }

    /// Sets a record; an empty one takes it away.
    fn set_record(&mut self, side: i64, name: &Bytes, record: &Bytes) -> Result<(), Reply> {
        if side == 0 {
            return Ok(());
        }
        let key = self.nth(side)?;
        if !record.is_empty() {
            self.s.redis("HSET", &[key, name, record])?;
            self.touched.insert(side, true);
        } else if self.s.number("HDEL", &[key, name])? == 1 {
            self.touched.insert(side, true);
        }
        Ok(())
    }

    /// What a name is: `v` a value, `c` a collection, or the kind letter of its record.
    fn what_is(&mut self, place: &Place, record: Option<&Bytes>) -> Option<Bytes> {
        match self.s.resolve(place).0 {
            Some(What::Collection) => Some(Bytes::from_static(b"c")),
            Some(_) => Some(Bytes::from_static(b"v")),
            None => {
                let record = record?;
                let kind = record.slice(..record.len().min(1));
                (&kind[..] != b"f" && &kind[..] != b"d").then_some(kind)
            }
        }
    }

    /// Whether a check holds; `None` when the word is not one.
    fn check(&mut self, word: &[u8]) -> Result<Option<bool>, Reply> {
        let holds = match word {
            b"free" => {
                let (place, side) = (self.arguments.place()?, self.side()?);
                let (name, dir) = (self.arguments.arg()?, self.arguments.key()?);
                let record = self.record(side, name)?;
                self.what_is(&place, record.as_ref()).is_none()
                    && !dir.is_some_and(|dir| self.s.cx.exists(dir))
            }
            b"is" => {
                let (place, side) = (self.arguments.place()?, self.side()?);
                let (name, what) = (self.arguments.arg()?, self.arguments.arg()?);
                let record = self.record(side, name)?;
                self.what_is(&place, record.as_ref()).as_ref() == Some(what)
            }
            b"room" => {
                let (place, wish) = (self.arguments.place()?, self.arguments.arg()?);
                self.s.resolve(&place).0.is_some() || self.s.room(&place, wish).is_some()
            }
            b"void" => {
                let key = self.arguments.some_key()?;
                self.s.inhabitants(key)? == 0
            }
            b"vacant" => {
                let (first, last) = (self.arguments.number()?, self.arguments.number()?);
                let except = self.arguments.key()?;
                vacant(self.s, &self.arguments, first, last, except)?
            }
            b"has" => {
                let (x, name) = (self.arguments.some_key()?, self.arguments.arg()?);
                let yes = self.arguments.number()?;
                self.s.number("HEXISTS", &[x, name])? == yes
            }
            _ => return Ok(None),
        };
        Ok(Some(holds))
    }

    fn change(&mut self, word: &[u8]) -> Result<(), Reply> {
        match word {
            b"make" => {
                let (place, wish) = (self.arguments.place()?, self.arguments.arg()?);
                let (side, name) = (self.side()?, self.arguments.arg()?);
                let record = self.arguments.arg()?;
                let what = self.s.room(&place, wish);
                self.s.put_value(&place, what, &Bytes::new())?;
                self.places.push(letter(what));
                self.set_record(side, name, record)
            }
            b"record" => {
                let (side, name) = (self.side()?, self.arguments.arg()?);
                let record = self.arguments.arg()?;
                self.set_record(side, name, record)
            }
            b"remove" => self.remove(),
            b"move" => self.rename(),
            b"tree" => {
                let (first, last) = (self.arguments.number()?, self.arguments.number()?);
                let own = self.arguments.number()?;
                rename_all(self.s, &self.arguments, first, last, own, self.version).map(|_| ())
            }
            b"length" => self.length(),
            b"patch" => self.patch(),
            b"touch" => {
                let (side, at) = (self.side()?, self.arguments.arg()?);
                let own = Bytes::from_static(b"/");
                let Some(record) = self.record(side, &own)? else { return Ok(()) };
                let record = patch(&record, &[(6, at.clone()), (7, at.clone())])?;
                self.set_record(side, &own, &record)
            }
            b"mark" => {
                let (side, record) = (self.side()?, self.arguments.arg()?);
                let unless = self.arguments.key()?;
                let own = Bytes::from_static(b"/");
                let unwanted = unless.is_some_and(|key| self.s.cx.exists(key));
                if unwanted || self.record(side, &own)?.is_some() {
                    return Ok(());
                }
                self.set_record(side, &own, record)
            }
            b"unmark" => {
                let (side, x) = (self.side()?, self.arguments.key()?);
                let key = self.nth(side)?;
                self.s.redis("DEL", &[key])?;
                self.touched.insert(side, false);
                self.delete(x)
            }
            b"xset" => {
                let (x, name) = (self.arguments.some_key()?, self.arguments.arg()?);
                let value = self.arguments.arg()?;
                self.s.redis("HSET", &[x, name, value]).map(|_| ())
            }
            b"xdel" => {
                let (x, name) = (self.arguments.some_key()?, self.arguments.arg()?);
                self.s.redis("HDEL", &[x, name]).map(|_| ())
            }
            _ => Err(malformed("an unknown step")),
        }
    }

    fn delete(&mut self, key: Option<&Bytes>) -> Result<(), Reply> {
        key.map_or(Ok(()), |key| self.s.redis("DEL", &[key]).map(|_| ()))
    }

    /// Takes a field away. The letter for where it was: `g` when its hash is gone with it.
    fn drop_field(&mut self, place: &Place) -> Result<u8, Reply> {
        let bare = place.bare()?;
        self.s.redis("HDEL", &[bare, &place.field])?;
        Ok(if self.s.cx.exists(bare) { b'f' } else { b'g' })
    }

    /// Keeps the value of a place under the orphan key for so many milliseconds.
    fn keep(&mut self, place: &Place, what: What, orphan: &Bytes, ms: &Bytes) -> Result<(), Reply> {
        if what == What::String {
            self.s.redis("RENAME", &[place.full()?, orphan])?;
        } else {
            let value = self.s.value_of(place, What::Field)?;
            self.s.redis("SET", &[orphan, &value])?;
        }
        self.s.redis("PEXPIRE", &[orphan, ms]).map(|_| ())
    }

    fn remove(&mut self) -> Result<(), Reply> {
        let (place, side) = (self.arguments.place()?, self.side()?);
        let (name, x) = (self.arguments.arg()?, self.arguments.key()?);
        let (orphan, ms) = (self.arguments.key()?, self.arguments.arg()?);
        let what = self.s.resolve(&place).0;
        let mut was = letter(what);
        if let (Some(what @ (What::String | What::Field)), Some(orphan)) = (what, orphan) {
            self.keep(&place, what, orphan, ms)?;
        }
        match what {
            Some(What::Field) => was = self.drop_field(&place)?,
            Some(What::String) if orphan.is_some() => {}
            Some(_) => self.delete(place.full.as_ref())?,
            None => {}
        }
        self.set_record(side, name, &Bytes::new())?;
        self.delete(x)?;
        self.places.push(was);
        Ok(())
    }

    fn rename(&mut self) -> Result<(), Reply> {
        let (from, side) = (self.arguments.place()?, self.side()?);
        let (name, x) = (self.arguments.arg()?, self.arguments.key()?);
        let (to, to_side) = (self.arguments.place()?, self.side()?);
        let (to_name, to_x) = (self.arguments.arg()?, self.arguments.key()?);
        let wish = self.arguments.arg()?;
        let (orphan, ms) = (self.arguments.key()?, self.arguments.arg()?);
        let record = self.record(side, name)?;
        let (what, old) = (self.s.resolve(&from).0, self.s.resolve(&to).0);
        let ttl = match old {
            Some(What::String) => self.s.number("PTTL", &[to.full()?])?,
            _ => -1,
        };
        if let (Some(old), Some(orphan)) = (old, orphan) {
            self.keep(&to, old, orphan, ms)?;
        }
        let (mut was, mut went) = (letter(what), b'-');
        if let Some(what) = what {
            let new = old.or_else(|| self.s.room(&to, wish));
            went = letter(new);
            was = self.move_value(&from, what, &to, new, ttl)?;
        } else if old == Some(What::String) {
            self.delete(to.full.as_ref())?;
        } else if old == Some(What::Field) {
            self.drop_field(&to)?;
        }
        self.set_record(side, name, &Bytes::new())?;
        self.set_record(to_side, to_name, &record.unwrap_or_default())?;
        self.places.extend([was, went]);
        let Some(x) = x else { return Ok(()) };
        let to_x = to_x.ok_or_else(|| malformed("no such key"))?;
        if self.s.cx.exists(x) {
            self.s.redis("RENAME", &[x, to_x]).map(|_| ())
        } else {
            self.delete(Some(to_x))
        }
    }

    /// Moves a value to where it goes at the target; the target's lifetime stays unless the
    /// value brings its own. The letter for where it was.
    fn move_value(
        &mut self,
        from: &Place,
        what: What,
        to: &Place,
        new: Option<What>,
        mut ttl: i64,
    ) -> Result<u8, Reply> {
        let mut was = letter(Some(what));
        if what == What::String && new == Some(What::String) {
            let (from, to) = (from.full()?, to.full()?);
            if self.s.number("PTTL", &[from])? > 0 {
                ttl = -1;
            }
            self.s.redis("RENAME", &[from, to])?;
        } else {
            let value = self.s.value_of(from, what)?;
            if what == What::String {
                self.delete(from.full.as_ref())?;
            } else {
                was = self.drop_field(from)?;
            }
            self.s.put_value(to, new, &value)?;
        }
        if new == Some(What::String) && ttl > 0 {
            self.s.redis("PEXPIRE", &[to.full()?, &decimal(ttl)])?;
        }
        Ok(was)
    }

    fn length(&mut self) -> Result<(), Reply> {
        let (place, size) = (self.arguments.place()?, self.arguments.number()?);
        let Some(what) = self.s.resolve(&place).0 else { return Ok(()) };
        let now = match what {
            What::String => self.s.number("STRLEN", &[place.full()?])?,
            _ => self.s.number("HSTRLEN", &[place.bare()?, &place.field])?,
        };
        if size == now {
            return Ok(());
        }
        let size_in_memory = usize::try_from(size).map_err(|_| malformed("a negative size"))?;
        match what {
            _ if size == 0 => self.s.put_value(&place, Some(what), &Bytes::new()),
            What::String if size > now => {
                let zero = Bytes::from_static(b"\0");
                self.s.redis("SETRANGE", &[place.full()?, &decimal(size - 1), &zero]).map(|_| ())
            }
            What::String => {
                let range = [place.full()?, &decimal(0), &decimal(size - 1)];
                let Reply::Bulk(value) = self.s.redis("GETRANGE", &range)? else {
                    return Err(malformed("no value"));
                };
                self.s.put_value(&place, Some(what), &value)
            }
            _ => {
                self.s.within_reach(size_in_memory)?;
                let resize = |value: &mut super::super::value::Blob| {
                    value.edit().resize(size_in_memory, 0);
                };
                self.s.edit_field(&place, resize).map(|_| ())
            }
        }
    }

    fn patch(&mut self) -> Result<(), Reply> {
        let (side, name) = (self.side()?, self.arguments.arg()?);
        let base = self.arguments.arg()?;
        let mut fields = Vec::new();
        loop {
            let word = self.arguments.arg()?;
            if &word[..] == b";" {
                break;
            }
            let n = parse_i64(word).ok_or_else(|| malformed("not a number"))?;
            fields.push((n, self.arguments.arg()?.clone()));
        }
        let record = self.record(side, name)?.unwrap_or_else(|| base.clone());
        if record.is_empty() {
            return Ok(());
        }
        let record = patch(&record, &fields)?;
        self.set_record(side, name, &record)
    }
}
