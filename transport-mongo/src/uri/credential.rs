//! Whom to authenticate as: user, mechanism, source, and which combinations are allowed.
//!
//! Source: the authentication specification, "Connection String Options".

use std::collections::BTreeMap;
use std::fmt;

use super::{Options, UriError};

/// A string that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the exchange that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Authentication mechanisms. Only the SCRAM family is implemented; the others parse, so that
/// the refusal can name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-1 (RFC 5802) over MongoDB's own password digest.
    ScramSha1,
    /// X.509 client certificates.
    X509,
    /// Kerberos.
    Gssapi,
    /// LDAP: the password in the clear.
    Plain,
    /// AWS IAM.
    Aws,
    /// OpenID Connect.
    Oidc,
}

impl Mechanism {
    /// The name in connection strings and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::X509 => "MONGODB-X509",
            Mechanism::Gssapi => "GSSAPI",
            Mechanism::Plain => "PLAIN",
            Mechanism::Aws => "MONGODB-AWS",
            Mechanism::Oidc => "MONGODB-OIDC",
        }
    }

    /// The mechanism of this name.
    pub fn from_name(name: &str) -> Option<Mechanism> {
        use Mechanism::{Aws, Gssapi, Oidc, Plain, ScramSha1, ScramSha256, X509};
        let all = [ScramSha256, ScramSha1, X509, Gssapi, Plain, Aws, Oidc];
        all.into_iter().find(|mechanism| mechanism.name() == name)
    }
}

/// Whom to authenticate as. Printing it shows neither the name nor the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user's name; some mechanisms do without.
    pub username: Option<Secret>,
    /// The password, if one was given.
    pub password: Option<Secret>,
    /// The database that knows the user.
    pub source: String,
    /// `None`: whatever the server prefers of the SCRAM family.
    pub mechanism: Option<Mechanism>,
    /// `authMechanismProperties`, with the defaults of the mechanism.
    pub properties: BTreeMap<String, Secret>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("source", &self.source)
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

/// What one mechanism allows.
struct Rule {
    needs_username: bool,
    takes_password: bool,
    /// The source when neither `authSource` nor a database is given.
    default_source: &'static str,
    /// Whether the source can only be `$external`.
    external_only: bool,
}

const EXTERNAL: &str = "$external";

fn rule(mechanism: Option<Mechanism>) -> Rule {
    let scram = Rule {
        needs_username: true,
        takes_password: true,
        default_source: "admin",
        external_only: false,
    };
    let external = Rule { external_only: true, default_source: EXTERNAL, ..scram };
    match mechanism {
        None | Some(Mechanism::ScramSha1 | Mechanism::ScramSha256) => scram,
        Some(Mechanism::Plain) => Rule { default_source: EXTERNAL, ..scram },
        Some(Mechanism::Gssapi) => external,
        Some(Mechanism::X509 | Mechanism::Oidc) => {
            Rule { needs_username: false, takes_password: false, ..external }
        }
        Some(Mechanism::Aws) => Rule { needs_username: false, ..external },
    }
}

/// Puts a credential together, `None` when the connection string asks for none.
pub(super) fn build(
    username: Option<String>,
    password: Option<String>,
    database: Option<&str>,
    options: &Options,
) -> Result<Option<Credential>, UriError> {
    let mechanism = options.auth_mechanism;
    if username.is_none() && mechanism.is_none() {
        return Ok(None);
    }
    let rule = rule(mechanism);
    let wrong = |what| Err(UriError::option("authmechanism", what));
    if rule.needs_username && username.is_none() {
        return wrong("the mechanism needs a user name");
    }
    if !rule.takes_password && password.is_some() {
        return wrong("the mechanism takes no password");
    }
    let given = options.auth_source.as_deref();
    if rule.external_only && given.is_some_and(|source| source != EXTERNAL) {
        return Err(UriError::option("authsource", "the mechanism's source is $external"));
    }
    let source = match rule.external_only {
        true => EXTERNAL,
        false => given.or(database).unwrap_or(rule.default_source),
    };
    let properties = properties(mechanism, &username, &password, options)?;
    Ok(Some(Credential {
        username: username.map(Secret::new),
        password: password.map(Secret::new),
        source: source.to_owned(),
        mechanism,
        properties,
    }))
}

/// Checks `authMechanismProperties` against the mechanism and adds its defaults.
fn properties(
    mechanism: Option<Mechanism>,
    username: &Option<String>,
    password: &Option<String>,
    options: &Options,
) -> Result<BTreeMap<String, Secret>, UriError> {
    let mut properties = options.auth_mechanism_properties.clone();
    let wrong = |what| Err(UriError::option("authmechanismproperties", what));
    let get = |name: &str| options.auth_mechanism_properties.get(name).map(Secret::reveal);
    match mechanism {
        Some(Mechanism::Gssapi) => {
            let canonicalize = get("CANONICALIZE_HOST_NAME").unwrap_or("none");
            if !["none", "forward", "forwardAndReverse", "true", "false"].contains(&canonicalize) {
                return wrong("an unknown CANONICALIZE_HOST_NAME");
            }
            properties.entry("SERVICE_NAME".to_owned()).or_insert_with(|| Secret::new("mongodb"));
        }
        Some(Mechanism::Aws) => {
            if username.is_some() != password.is_some() {
                return wrong("a key id and a secret key come together");
            }
            if username.is_none() && get("AWS_SESSION_TOKEN").is_some() {
                return wrong("a session token needs a key id and a secret key");
            }
        }
        Some(Mechanism::Oidc) => {
            let known = ["ENVIRONMENT", "TOKEN_RESOURCE"];
            if properties.keys().any(|name| !known.contains(&name.as_str())) {
                return wrong("a property MONGODB-OIDC does not have");
            }
            let resource = get("TOKEN_RESOURCE").is_some();
            match get("ENVIRONMENT") {
                Some("test") if username.is_none() => {}
                Some("k8s") if username.is_none() => {}
                Some("test" | "k8s") => return wrong("this ENVIRONMENT takes no user name"),
                Some("azure" | "gcp") if resource => {}
                Some("azure" | "gcp") => return wrong("this ENVIRONMENT needs a TOKEN_RESOURCE"),
                Some(_) => return wrong("an unknown ENVIRONMENT"),
                None => return wrong("MONGODB-OIDC needs an ENVIRONMENT"),
            }
        }
        _ => {}
    }
    Ok(properties)
}
