//! The little that is asked of a database, so that everything above is written once.

use std::fmt;

/// A value in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
}

impl Value {
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            // Sums come as decimals from some servers.
            Self::Text(text) => text.parse().ok(),
            Self::Null => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Int(_) | Self::Null => None,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Value {
    /// The largest that fits: times end in the year 2262.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Why a statement was not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The file is damaged: it must be replaced.
    Corrupt(String),
    /// Anything else: it may work later.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(text) | Self::Other(text) => f.write_str(text),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// A connection to a database. Statements have `?` for each value.
pub(super) trait Sql: Send {
    /// Rows that were changed.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64>;

    fn select(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>>;

    /// The statements that make the tables, if they are not there.
    fn schema(&self) -> &'static [&'static str];

    /// How much room the rows take, bytes.
    fn used_bytes(&mut self) -> Result<u64>;

    /// Gives room that was freed back to the system.
    fn give_back(&mut self) -> Result<()>;

    /// All or nothing: what `work` did stays if it went well.
    fn transaction(&mut self, work: &mut dyn FnMut(&mut dyn Sql) -> Result<()>) -> Result<()>;
}

/// The statements of a transaction, for connections that have no better way.
pub(super) fn transaction(
    sql: &mut dyn Sql,
    begin: &str,
    work: &mut dyn FnMut(&mut dyn Sql) -> Result<()>,
) -> Result<()> {
    sql.execute(begin, &[])?;
    let done = work(sql).and_then(|()| sql.execute("COMMIT", &[]).map(drop));
    if done.is_err() {
        // After some failures the database has done so itself.
        let _ = sql.execute("ROLLBACK", &[]);
    }
    done
}
