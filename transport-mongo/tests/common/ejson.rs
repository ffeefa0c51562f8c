//! Extended JSON, as the official cases write it, into BSON.

use dbmount_transport_mongo::wire::build::DocBuf;
use dbmount_transport_mongo::wire::doc::Doc;
use serde_json::Value as Json;

/// A JSON object as a document.
pub(crate) fn doc(json: &Json) -> Doc {
    let mut out = DocBuf::new();
    fields(json, &mut out);
    out.finish_doc().expect("a document")
}

/// The 12 bytes of `{"$oid": ".."}`.
pub(crate) fn object_id(json: &Json) -> Option<[u8; 12]> {
    let digits = json["$oid"].as_str()?;
    let mut id = [0; 12];
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hex digits");
    }
    Some(id)
}

/// A number, plain or `{"$numberLong": ".."}`.
pub(crate) fn number(json: &Json) -> Option<i64> {
    json.as_i64().or_else(|| json["$numberLong"].as_str()?.parse().ok())
}

fn fields(json: &Json, out: &mut DocBuf) {
    for (name, value) in json.as_object().expect("an object") {
        field(name, value, out);
    }
}

fn field(name: &str, value: &Json, out: &mut DocBuf) {
    match value {
        Json::Null => out.null(name),
        Json::Bool(value) => out.bool(name, *value),
        Json::String(value) => out.str(name, value),
        Json::Number(_) => match number(value) {
            Some(whole) => out.i64(name, whole),
            None => out.f64(name, value.as_f64().expect("a number")),
        },
        Json::Array(list) => {
            out.begin_array(name);
            for (i, value) in list.iter().enumerate() {
                field(&i.to_string(), value, out);
            }
            out.end()
        }
        Json::Object(_) => match (object_id(value), number(value)) {
            (Some(id), _) => out.object_id(name, id),
            (_, Some(long)) => out.i64(name, long),
            _ => {
                out.begin(name);
                fields(value, out);
                out.end()
            }
        },
    };
}
