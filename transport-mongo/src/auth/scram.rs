//! SCRAM-SHA-1 and SCRAM-SHA-256 as a pure state machine: messages in, messages out, the nonce
//! handed in.
//!
//! Sources: RFC 5802, RFC 7677, RFC 4013 (SASLprep), and the MongoDB authentication
//! specification, which hashes the password with MD5 first for SCRAM-SHA-1.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::error::AuthError;
use crate::uri::Mechanism;

/// Fewer rounds than this make a stolen verifier too cheap to attack (RFC 5802, section 5.1).
pub const LEAST_ITERATIONS: u32 = 4096;

/// More rounds than this are an attack on our own time (about ten seconds).
pub const MOST_ITERATIONS: u32 = 10_000_000;

/// Random bytes of a nonce before base64.
pub const NONCE_BYTES: usize = 24;

/// The two hashes of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl Hash {
    /// The hash of a mechanism.
    ///
    /// # Errors
    /// [`AuthError::Mechanism`] for any mechanism outside the SCRAM family.
    pub fn of(mechanism: Mechanism) -> Result<Hash, AuthError> {
        match mechanism {
            Mechanism::ScramSha1 => Ok(Hash::Sha1),
            Mechanism::ScramSha256 => Ok(Hash::Sha256),
            other => Err(AuthError::Mechanism(other.name())),
        }
    }

    /// The mechanism's name on the wire.
    pub const fn mechanism(self) -> &'static str {
        match self {
            Hash::Sha1 => "SCRAM-SHA-1",
            Hash::Sha256 => "SCRAM-SHA-256",
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha1 => Sha1::digest(data).to_vec(),
            Hash::Sha256 => Sha256::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        fn run<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
            // HMAC takes keys of every length; an empty answer would fail the proof.
            M::new_from_slice(key)
                .map(|mac| mac.chain_update(data).finalize().into_bytes().to_vec())
                .unwrap_or_default()
        }
        match self {
            Hash::Sha1 => run::<Hmac<Sha1>>(key, data),
            Hash::Sha256 => run::<Hmac<Sha256>>(key, data),
        }
    }

    fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let password = password.as_bytes();
        match self {
            Hash::Sha1 => {
                pbkdf2::pbkdf2_hmac_array::<Sha1, 20>(password, salt, iterations).to_vec()
            }
            Hash::Sha256 => {
                pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec()
            }
        }
    }

    /// The password as the mechanism hashes it: SASLprep for SHA-256, MongoDB's digest for
    /// SHA-1. The user name is never prepared (authentication spec, "SCRAM-SHA-256").
    fn prepare(self, username: &str, password: &str) -> Result<String, AuthError> {
        match self {
            Hash::Sha256 => match stringprep::saslprep(password) {
                Ok(prepared) => Ok(prepared.into_owned()),
                Err(_) => Err(AuthError::Prohibited),
            },
            Hash::Sha1 => {
                let digest = Md5::digest(format!("{username}:mongo:{password}"));
                Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
            }
        }
    }
}

/// The keys a password and a salt make, kept so that PBKDF2 (milliseconds) runs once a password
/// and not once a connection. Holds at most [`KeyCache::CAPACITY`] entries, oldest out first.
#[derive(Clone, Default)]
pub struct KeyCache {
    entries: Vec<(CacheKey, Keys)>,
}

type CacheKey = (Hash, Vec<u8>, Vec<u8>, u32);

#[derive(Clone)]
struct Keys {
    client: Vec<u8>,
    server: Vec<u8>,
}

impl KeyCache {
    /// One entry a user and salt; servers of one set share their salts.
    pub const CAPACITY: usize = 16;

    /// How many keys it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn keys(&mut self, hash: Hash, password: &str, salt: &[u8], iterations: u32) -> Keys {
        // A digest stands for the password, so that the cache never holds it.
        let digest = Sha256::digest(password.as_bytes()).to_vec();
        let key = (hash, digest, salt.to_vec(), iterations);
        if let Some((_, keys)) = self.entries.iter().find(|(k, _)| *k == key) {
            return keys.clone();
        }
        let salted = hash.salted(password, salt, iterations);
        let keys = Keys {
            client: hash.hmac(&salted, b"Client Key"),
            server: hash.hmac(&salted, b"Server Key"),
        };
        if self.entries.len() == KeyCache::CAPACITY {
            self.entries.remove(0);
        }
        self.entries.push((key, keys.clone()));
        keys
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyCache({} entries)", self.entries.len())
    }
}

/// The client after its first message, expecting the server's first.
#[derive(Clone)]
pub struct ExpectServerFirst {
    hash: Hash,
    password: String,
    nonce: String,
    first_bare: String,
}

/// The client after its final message, expecting the server's proof.
#[derive(Clone)]
pub struct ExpectServerFinal {
    signature: Vec<u8>,
}

/// No channel binding: `n,,`, in base64 `biws` (RFC 5802, section 7).
const GS2: &str = "n,,";

/// Begins an exchange: the client-first message and what follows it. `nonce` is fresh random
/// text without commas (base64 of [`NONCE_BYTES`] random bytes).
///
/// # Errors
/// [`AuthError::Prohibited`] for a password that SASLprep refuses, or a nonce with a comma or a
/// character that does not print.
pub fn start(
    hash: Hash,
    username: &str,
    password: &str,
    nonce: &str,
) -> Result<(Vec<u8>, ExpectServerFirst), AuthError> {
    start_prepared(hash, username, hash.prepare(username, password)?, nonce)
}

fn start_prepared(
    hash: Hash,
    username: &str,
    password: String,
    nonce: &str,
) -> Result<(Vec<u8>, ExpectServerFirst), AuthError> {
    if !printable(nonce) || nonce.is_empty() {
        return Err(AuthError::Exchange("a nonce of the wrong characters"));
    }
    let name = username.replace('=', "=3D").replace(',', "=2C");
    let first_bare = format!("n={name},r={nonce}");
    let message = format!("{GS2}{first_bare}").into_bytes();
    Ok((message, ExpectServerFirst { hash, password, nonce: nonce.to_owned(), first_bare }))
}

/// Random bytes as a nonce.
pub fn nonce(random: &[u8; NONCE_BYTES]) -> String {
    BASE64.encode(random)
}

fn printable(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, 0x21..=0x2b | 0x2d..=0x7e))
}

impl ExpectServerFirst {
    /// Takes the server-first message and gives the client-final one.
    ///
    /// # Errors
    /// A message that breaks RFC 5802, a nonce that is not ours continued, or an iteration count
    /// out of bounds.
    pub fn on_server_first(
        self,
        message: &[u8],
        cache: &mut KeyCache,
    ) -> Result<(Vec<u8>, ExpectServerFinal), AuthError> {
        let wrong = AuthError::Exchange;
        let server_first =
            std::str::from_utf8(message).map_err(|_| wrong("server-first is not UTF-8"))?;
        let mut fields = server_first.split(',');
        let mut field = |name: &str, what| {
            fields.next().and_then(|field| field.strip_prefix(name)).ok_or(wrong(what))
        };
        let nonce = field("r=", "server-first without a nonce")?;
        let salt = field("s=", "server-first without a salt")?;
        let iterations = field("i=", "server-first without an iteration count")?;
        if !printable(nonce)
            || nonce.len() <= self.nonce.len()
            || !nonce.starts_with(self.nonce.as_str())
        {
            return Err(wrong("a server nonce that does not continue ours"));
        }
        let salt = BASE64.decode(salt).map_err(|_| wrong("a salt that is not base64"))?;
        if salt.is_empty() {
            return Err(wrong("an empty salt"));
        }
        let iterations = match iterations.parse::<u32>() {
            Ok(n) if n < LEAST_ITERATIONS => return Err(AuthError::IterationsTooFew(n)),
            Ok(n) if n <= MOST_ITERATIONS => n,
            _ => return Err(wrong("an iteration count that is no number or far too large")),
        };
        let keys = cache.keys(self.hash, &self.password, &salt, iterations);
        let without_proof = format!("c={},r={nonce}", BASE64.encode(GS2));
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let stored_key = self.hash.digest(&keys.client);
        let client_signature = self.hash.hmac(&stored_key, auth_message.as_bytes());
        let proof: Vec<u8> =
            keys.client.iter().zip(&client_signature).map(|(a, b)| a ^ b).collect();
        let message = format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes();
        let signature = self.hash.hmac(&keys.server, auth_message.as_bytes());
        Ok((message, ExpectServerFinal { signature }))
    }
}

impl ExpectServerFinal {
    /// Takes the server-final message. Success means that the server knows the password too.
    ///
    /// # Errors
    /// [`AuthError::ServerSignature`] when its signature is not the right one.
    pub fn on_server_final(self, message: &[u8]) -> Result<(), AuthError> {
        let text = std::str::from_utf8(message)
            .map_err(|_| AuthError::Exchange("server-final is not UTF-8"))?;
        let field = text.split(',').next().unwrap_or("");
        if field.starts_with("e=") {
            return Err(AuthError::Exchange("the server reports an error"));
        }
        let signature = field
            .strip_prefix("v=")
            .and_then(|encoded| BASE64.decode(encoded).ok())
            .ok_or(AuthError::Exchange("server-final without a signature"))?;
        match bool::from(signature.ct_eq(&self.signature)) {
            true => Ok(()),
            false => Err(AuthError::ServerSignature),
        }
    }
}

impl fmt::Debug for ExpectServerFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpectServerFirst({})", self.hash.mechanism())
    }
}

impl fmt::Debug for ExpectServerFinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExpectServerFinal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Vector {
        hash: Hash,
        /// `None`: the password goes in as it is (the RFC's vector, not MongoDB's digest).
        digest: bool,
        nonce: &'static str,
        server_first: &'static str,
        client_final: &'static str,
        server_final: &'static str,
    }

    const VECTORS: [Vector; 3] = [
        // RFC 5802, section 5.
        Vector {
            hash: Hash::Sha1,
            digest: false,
            nonce: "fyko+d2lbbFgONRv9qkxdawL",
            server_first: "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
            client_final: "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                           p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            server_final: "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        },
        // RFC 7677, section 3; MongoDB's own SHA-256 vector is the same.
        Vector {
            hash: Hash::Sha256,
            digest: true,
            nonce: "rOprNGfwEbeRWgbNEkqO",
            server_first: "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                           s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            client_final: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                           p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            server_final: "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        },
        // MongoDB authentication specification, SCRAM-SHA-1 conversation.
        Vector {
            hash: Hash::Sha1,
            digest: true,
            nonce: "fyko+d2lbbFgONRv9qkxdawL",
            server_first: "r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,\
                           s=rQ9ZY3MntBeuP3E1TDVC4w==,i=10000",
            client_final: "c=biws,r=fyko+d2lbbFgONRv9qkxdawLHo+Vgk7qvUOKUwuWLIWg4l/9SraGMHEE,\
                           p=MC2T8BvbmWRckDw8oWl5IVghwCY=",
            server_final: "v=UMWeI25JD1yNYZRMpZ4VHvhZ9e0=",
        },
    ];

    fn begin(vector: &Vector) -> (Vec<u8>, ExpectServerFirst) {
        match vector.digest {
            true => start(vector.hash, "user", "pencil", vector.nonce).unwrap(),
            false => start_prepared(vector.hash, "user", "pencil".into(), vector.nonce).unwrap(),
        }
    }

    #[test]
    fn the_vectors_of_the_rfcs_and_the_specification() {
        let mut cache = KeyCache::default();
        for vector in &VECTORS {
            let (first, state) = begin(vector);
            assert_eq!(first, format!("n,,n=user,r={}", vector.nonce).as_bytes());
            let server_first = vector.server_first.as_bytes();
            let (last, state) = state.on_server_first(server_first, &mut cache).unwrap();
            assert_eq!(String::from_utf8(last).unwrap(), vector.client_final);
            state.on_server_final(vector.server_final.as_bytes()).unwrap();
        }
        assert_eq!(cache.len(), VECTORS.len());
    }

    #[test]
    fn a_wrong_server_signature_is_an_impostor() {
        for vector in &VECTORS {
            let (_, state) = begin(vector);
            let mut cache = KeyCache::default();
            let (_, state) =
                state.on_server_first(vector.server_first.as_bytes(), &mut cache).unwrap();
            for (message, want) in [
                ("v=rmF9pqV8S7suAoZWja4dJRkFsKR=", None),
                ("v=AAAA", Some(AuthError::ServerSignature)),
                ("v=", Some(AuthError::ServerSignature)),
                ("v=!", None),
                ("e=other-error", None),
                ("", None),
            ] {
                let error = state.clone().on_server_final(message.as_bytes()).unwrap_err();
                assert!(want.is_none_or(|want| want == error), "{message}: {error}");
            }
        }
    }

    #[test]
    fn what_breaks_the_exchange_is_refused() {
        let vector = &VECTORS[0];
        let r = "r=fyko+d2lbbFgONRv9qkxdawL3rfc";
        for bad in [
            "",
            "r=",
            r,
            &format!("{r},s=QSXCR+Q6sek8bf92"),
            &format!("s=QSXCR+Q6sek8bf92,{r},i=4096"),
            &format!("m=ext,{r},s=QSXCR+Q6sek8bf92,i=4096"),
            &format!("{r},s=,i=4096"),
            &format!("{r},s=*,i=4096"),
            &format!("{r},s=QSXCR+Q6sek8bf92,i=x"),
            &format!("{r},s=QSXCR+Q6sek8bf92,i=99999999999"),
            &format!("{r},s=QSXCR+Q6sek8bf92,i=-4096"),
            "r=other,s=QSXCR+Q6sek8bf92,i=4096",
            "r=fyko+d2lbbFgONRv9qkxdawL,s=QSXCR+Q6sek8bf92,i=4096",
        ] {
            let (_, state) = begin(vector);
            let mut cache = KeyCache::default();
            assert!(state.on_server_first(bad.as_bytes(), &mut cache).is_err(), "{bad}");
            assert!(cache.is_empty(), "no rounds for a message that is refused");
        }
    }

    #[test]
    fn the_iteration_floor_holds() {
        let (_, state) = begin(&VECTORS[0]);
        let message = b"r=fyko+d2lbbFgONRv9qkxdawLx,s=QSXCR+Q6sek8bf92,i=4095";
        let error = state.on_server_first(message, &mut KeyCache::default()).unwrap_err();
        assert_eq!(error, AuthError::IterationsTooFew(4095));
    }

    #[test]
    fn passwords_are_prepared_and_names_only_escaped() {
        // RFC 4013, section 3, and the specification's own users.
        let prepared = |password| Hash::Sha256.prepare("u", password);
        assert_eq!(prepared("I\u{ad}X").unwrap(), "IX");
        assert_eq!(prepared("\u{2168}").unwrap(), "IX");
        assert_eq!(prepared("\u{aa}").unwrap(), "a");
        assert_eq!(prepared("\u{7}"), Err(AuthError::Prohibited));
        assert_eq!(prepared("\u{627}1"), Err(AuthError::Prohibited));
        let (first, _) = start(Hash::Sha256, "a=b,c", "p", "n").unwrap();
        assert_eq!(first, b"n,,n=a=3Db=2Cc,r=n");
        assert!(start(Hash::Sha256, "a", "p", "n,x").is_err());
    }

    #[test]
    fn the_cache_is_bounded_and_nothing_prints_a_secret() {
        let mut cache = KeyCache::default();
        for salt in 0..2 * KeyCache::CAPACITY as u8 {
            cache.keys(Hash::Sha1, "hunter2", &[salt], 1);
        }
        assert_eq!(cache.len(), KeyCache::CAPACITY);
        let (_, state) = start(Hash::Sha256, "u", "hunter2", "n").unwrap();
        assert!(!format!("{cache:?} {state:?}").contains("hunter2"));
    }
}
