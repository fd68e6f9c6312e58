//! Why a call was not done, in kinds that every protocol can tell in its own way.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

/// What a call gives.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was not done. The text is for people and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Nobody said who asks. (gRPC UNAUTHENTICATED, HTTP 401)
    Unauthenticated(String),
    /// The caller may not. (PERMISSION_DENIED, 403)
    Forbidden(String),
    /// There is no such thing. (NOT_FOUND, 404)
    NotFound(String),
    /// What was sent cannot be used as it is. (INVALID_ARGUMENT, 422)
    Invalid {
        /// In one sentence.
        message: String,
        /// Where it is wrong; may be empty.
        problems: Vec<Problem>,
    },
    /// Somebody else was faster. (ABORTED, 409)
    Conflict {
        /// The version that is there now.
        current: u64,
    },
    /// It is understood and allowed, but not possible as things are. (FAILED_PRECONDITION, 409)
    Refused(String),
    /// Too much at once; try again. (RESOURCE_EXHAUSTED, 429)
    Busy(String),
    /// The daemon cannot be reached. (UNAVAILABLE, 503)
    Unavailable(String),
    /// Something failed here. (INTERNAL, 500)
    Internal(String),
}

/// One thing that is wrong with what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// Line, from 1; 0: it concerns the whole.
    pub line: usize,
    /// Column in characters, from 1; 0: unknown, or it concerns the whole line.
    pub column: usize,
    /// The key with its tables, such as `heartbeat.deadline`; empty: it concerns no key.
    pub key: String,
    /// What was found and what was expected.
    pub message: String,
    /// The known word that was probably meant; empty: none.
    pub nearest: String,
    /// Whether it only deserves a look: what was sent can be used as it is.
    pub warning: bool,
}

impl Error {
    /// One thing is wrong with one field.
    pub fn field(key: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let problem = Problem { key: key.to_owned(), message: message.clone(), ..Problem::default() };
        Self::Invalid { message: format!("{key}: {message}"), problems: vec![problem] }
    }

    /// A file could not be read or written.
    pub(crate) fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Internal(format!("{}: {error}", path.display()))
    }

    /// The kind, in one word: the same in every protocol.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Forbidden(_) => "forbidden",
            Self::NotFound(_) => "not-found",
            Self::Invalid { .. } => "invalid",
            Self::Conflict { .. } => "conflict",
            Self::Refused(_) => "refused",
            Self::Busy(_) => "busy",
            Self::Unavailable(_) => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    /// What is wrong where, if that is why.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            _ => &[],
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { message, .. } => f.write_str(message),
            Self::Conflict { current } => {
                write!(
                    f,
                    "it was changed meanwhile: version {current} is there now; read it again and repeat the change"
                )
            }
            Self::Unauthenticated(text)
            | Self::Forbidden(text)
            | Self::NotFound(text)
            | Self::Refused(text)
            | Self::Busy(text)
            | Self::Unavailable(text)
            | Self::Internal(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
