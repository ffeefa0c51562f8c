//! Bodies of the fuzz targets: each takes arbitrary bytes and asserts what must hold for all of
//! them. They live here so that a target is one line and the tests run them too.

use crate::resp::{Decoder, Frame, Limits, push};
use crate::url::Endpoint;

/// What the decoder may hold beside what it was given: its buffer and its stack.
const KEPT: usize = 1 << 20;

/// A server's byte stream, in pieces whose sizes the bytes themselves choose.
pub fn stream(data: &[u8]) {
    let limits = Limits { bulk: 64 << 10, frame: 256 << 10, ..Limits::default() };
    let mut decoder = Decoder::new(limits);
    let mut rest = data;
    while let Some((size, after)) = rest.split_first() {
        let (mut now, later) = after.split_at(after.len().min(usize::from(*size) + 1));
        rest = later;
        while !now.is_empty() {
            if decoder.receive(&mut now).is_err() {
                return;
            }
            loop {
                match decoder.next_frame() {
                    Ok(Some(Frame::Push(fields))) => drop(push(fields)),
                    Ok(Some(Frame::Reply(_))) => {}
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(decoder.next_frame(), Err(error), "the same ever after");
                        return;
                    }
                }
            }
            assert!(decoder.memory() <= data.len() * 64 + KEPT, "{} bytes", decoder.memory());
        }
    }
}

/// The URL of a server. What it shows of itself, which holds no password, leads to the same place.
pub fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match text.parse::<Endpoint>() {
        Ok(endpoint) => {
            let shown = endpoint.to_string();
            let again: Endpoint = shown.parse().unwrap_or_else(|error| panic!("{shown}: {error}"));
            assert_eq!(
                (&again.address, again.db, &again.volume),
                (&endpoint.address, endpoint.db, &endpoint.volume),
                "{shown}"
            );
        }
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}
