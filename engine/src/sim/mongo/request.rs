//! Commands as they come in: the body and document sequences read, the session's fields apart.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::failure::{BAD_VALUE, Failure, TYPE_MISMATCH};
use super::value::{Document, Val};
use crate::backend::bson::{Doc, Segments};
use crate::backend::mongo::{Command, Concern};

/// Identifies a session: its `lsid`, as bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) Vec<u8>);

/// A command, read.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) db: String,
    /// The fields that are the command's own.
    pub(super) fields: Document,
    sequences: Vec<(String, Vec<Document>)>,
    pub(super) session: Option<SessionId>,
    pub(super) number: Option<i64>,
    /// It is part of a transaction.
    pub(super) transaction: bool,
    pub(super) starts: bool,
    pub(super) safety: Safety,
}

/// How safe a write is to be before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Safety {
    /// Nothing was said of it.
    Default,
    /// The primary has it in memory.
    Memory,
    /// The journal, or a majority, has it.
    Safe,
}

/// What any command may carry and nothing here depends on.
const IGNORED: [&str; 6] =
    ["$clusterTime", "$readPreference", "readConcern", "maxTimeMS", "comment", "stmtId"];

impl Request {
    pub(super) fn read(command: &Command) -> Result<Request, Failure> {
        let wrong = |_| Failure::new(BAD_VALUE, "the command is no BSON document");
        let body = Document::of(&command.document().map_err(wrong)?);
        let mut request = Request {
            name: String::from(command.name()),
            db: String::new(),
            fields: Document::default(),
            sequences: Vec::new(),
            session: None,
            number: None,
            transaction: false,
            starts: false,
            safety: match command.concern {
                Concern::None => Safety::Default,
                Concern::Acknowledged => Safety::Memory,
                Concern::Durable => Safety::Safe,
            },
        };
        for (name, value) in body.0 {
            match name.as_str() {
                "$db" => request.db = value.as_text().map(String::from).unwrap_or_default(),
                "lsid" => {
                    let id = value.as_doc().and_then(|it| it.doc().ok());
                    let id =
                        id.ok_or_else(|| Failure::new(TYPE_MISMATCH, "lsid is no document"))?;
                    request.session = Some(SessionId(id.as_bytes().to_vec()));
                }
                "txnNumber" => request.number = value.as_i64(),
                "autocommit" => request.transaction = !value.is_true(),
                "startTransaction" => request.starts = value.is_true(),
                "writeConcern" => request.safety = safety(&value),
                ignored if IGNORED.contains(&ignored) => {}
                _ => request.fields.0.push((name, value)),
            }
        }
        for sequence in &command.sequences {
            let docs = sequence.docs.iter().map(read_segments);
            let docs = docs.collect::<Result<Vec<_>, _>>()?;
            request.sequences.push((String::from(sequence.name.as_ref()), docs));
        }
        Ok(request)
    }

    /// Refuses what a command carries beside these fields.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Failure> {
        let fields = self.fields.0.iter().skip(1).map(|(name, _)| name.as_str());
        let sequences = self.sequences.iter().map(|(name, _)| name.as_str());
        match fields.chain(sequences).find(|name| !known.contains(name)) {
            Some(other) => {
                Err(Failure::not_simulated(&format!("the field {other} of {}", self.name)))
            }
            None => Ok(()),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Val> {
        self.fields.get(name)
    }

    /// A document-valued field; an empty one when it is missing.
    pub(super) fn doc(&self, name: &str) -> Result<Document, Failure> {
        match self.get(name) {
            None => Ok(Document::default()),
            Some(Val::Doc(doc)) => Ok(doc.clone()),
            Some(other) => {
                let message = format!(
                    "BSON field '{}.{name}' is the wrong type '{}', expected type 'object'",
                    self.name,
                    other.type_name()
                );
                Err(Failure::new(TYPE_MISMATCH, message))
            }
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, Val::is_true)
    }

    /// A whole number that is not negative.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, Failure> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_i64().map(usize::try_from) {
            Some(Ok(count)) => Ok(Some(count)),
            Some(Err(_)) => {
                let message = format!(
                    "BSON field '{name}' value must be >= 0, actual value '{}'",
                    value.as_i64().unwrap_or(0)
                );
                Err(Failure::new(51_024, message))
            }
            None => {
                let message = format!(
                    "BSON field '{}.{name}' is the wrong type '{}', expected types '[long, int, \
                     decimal, double']",
                    self.name,
                    value.type_name()
                );
                Err(Failure::new(TYPE_MISMATCH, message))
            }
        }
    }

    /// `database.collection` of the command's first field.
    pub(super) fn namespace(&self) -> Result<String, Failure> {
        let first = self.fields.0.first().map(|(_, value)| value);
        let name = match first {
            Some(Val::Str(_)) => first.and_then(Val::as_text),
            _ => None,
        };
        let Some(name) = name else {
            let message = "collection name has invalid type";
            return Err(Failure::new(super::failure::INVALID_NAMESPACE, message));
        };
        self.namespace_of(name)
    }

    pub(super) fn namespace_of(&self, name: &str) -> Result<String, Failure> {
        let namespace = format!("{}.{name}", self.db);
        let bad_db = self.db.is_empty() || self.db.chars().any(|it| "/\\. \"$\0".contains(it));
        let bad_name = name.is_empty() || name.starts_with('.') || name.contains('\0');
        if bad_db || bad_name {
            let message = format!("Invalid namespace specified '{namespace}'");
            return Err(Failure::new(super::failure::INVALID_NAMESPACE, message));
        }
        Ok(namespace)
    }

    /// A list of documents, whether it came as an array or as a sequence.
    pub(super) fn documents(&self, name: &str) -> Result<Vec<Document>, Failure> {
        if let Some((_, docs)) = self.sequences.iter().find(|(it, _)| it == name) {
            return Ok(docs.clone());
        }
        let missing = || {
            let message =
                format!("BSON field '{}.{name}' is missing but a required field", self.name);
            Failure::new(40_414, message)
        };
        let Some(Val::Array(items)) = self.get(name) else { return Err(missing()) };
        let doc = |it: &Val| it.as_doc().cloned().ok_or_else(missing);
        items.iter().map(doc).collect()
    }
}

fn read_segments(segments: &Segments) -> Result<Document, Failure> {
    let doc = Doc::parse(segments.concat());
    let doc = doc.map_err(|error| Failure::new(22, format!("{error}")))?;
    Ok(Document::of(&doc))
}

fn safety(concern: &Val) -> Safety {
    let Some(concern) = concern.as_doc() else { return Safety::Default };
    let journal = concern.get("j").is_some_and(Val::is_true);
    match concern.get("w") {
        Some(Val::Str(_)) => Safety::Safe,
        _ if journal => Safety::Safe,
        Some(_) => Safety::Memory,
        None => Safety::Default,
    }
}
