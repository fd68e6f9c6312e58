//! MariaDB or MySQL: a database on a server.

use std::path::Path;
use std::time::Duration;

use mysql::prelude::Queryable as _;
use mysql::{Conn, Opts, OptsBuilder, Params, SslOpts};

use super::sql::{Failure, Result, Sql, Value, transaction};

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Mysql(Conn);

impl Mysql {
    /// Connects to what `url` names, such as `mysql://multus@server/history` or
    /// `mysql://multus@localhost/history?socket=/run/mysqld/mysqld.sock`. No call waits longer than [`PATIENCE`].
    /// With a certificate authority the connection is TLS or none.
    pub(super) fn open(url: &str, password: &str, ca: &Path) -> Result<Self> {
        // The library takes the provider of the whole process. It is no mistake if it is there already.
        let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
        let options = options(url, password, ca).map_err(Failure::Other)?;
        let connection = Conn::new(options).map_err(|error| failure(&error))?;
        Ok(Self(connection))
    }
}

fn options(url: &str, password: &str, ca: &Path) -> std::result::Result<Opts, String> {
    // The text of an error might hold the URL, and that a password.
    let options = Opts::from_url(url)
        .map_err(|_| "history.database is no URL that can be used: expected mysql://user@server/database".to_owned())?;
    let mut builder = OptsBuilder::from_opts(options)
        .tcp_connect_timeout(Some(PATIENCE))
        .read_timeout(Some(PATIENCE))
        .write_timeout(Some(PATIENCE))
        .stmt_cache_size(Some(8));
    if !ca.as_os_str().is_empty() {
        builder = builder.ssl_opts(Some(SslOpts::default().with_root_cert_path(Some(ca.to_path_buf()))));
    }
    if !password.is_empty() {
        builder = builder.pass(Some(password));
    }
    Ok(builder.into())
}

/// Whether `url` can be used.
///
/// # Errors
/// Why not; the text holds no password.
pub(super) fn check(url: &str, ca: &Path) -> std::result::Result<(), String> {
    if !ca.as_os_str().is_empty() && !ca.is_absolute() {
        return Err("history.ca: expected an absolute path".into());
    }
    let options = options(url, "", ca)?;
    if options.get_pass().is_some_and(|password| !password.is_empty()) {
        return Err("history.database: a password does not belong into the URL: put it into a file, and name that in \
                    history.password_file"
            .into());
    }
    match options.get_db_name() {
        Some(_) => Ok(()),
        None => Err("history.database names no database: expected mysql://user@server/database".into()),
    }
}

impl Sql for Mysql {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64> {
        match values {
            // The statements of transactions cannot be prepared everywhere.
            [] => self.0.query_drop(sql),
            _ => self.0.exec_drop(sql, params(values)),
        }
        .map_err(|error| failure(&error))?;
        Ok(self.0.affected_rows())
    }

    fn select(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Vec<Value>>> {
        let rows: Vec<mysql::Row> = self.0.exec(sql, params(values)).map_err(|error| failure(&error))?;
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(value_of).collect()).collect())
    }

    fn schema(&self) -> &'static [&'static str] {
        &[
            "CREATE TABLE IF NOT EXISTS events (id BIGINT PRIMARY KEY AUTO_INCREMENT, run BIGINT NOT NULL, \
             seq BIGINT NOT NULL, time_unix_ns BIGINT NOT NULL, mono_ns BIGINT NOT NULL, child VARCHAR(64), \
             instance BIGINT, kind VARCHAR(32) NOT NULL, fault VARCHAR(32), detail TEXT NOT NULL, json MEDIUMTEXT NOT NULL, \
             INDEX events_same (time_unix_ns, seq, mono_ns), INDEX events_child (child, id), \
             INDEX events_kind (kind, id)) ENGINE=InnoDB CHARACTER SET utf8mb4",
            "CREATE TABLE IF NOT EXISTS io_changes (id BIGINT PRIMARY KEY AUTO_INCREMENT, time_unix_ns BIGINT NOT NULL, \
             line VARCHAR(64) NOT NULL, kind VARCHAR(32) NOT NULL, value VARCHAR(190) NOT NULL, previous VARCHAR(190), \
             duration_ns BIGINT, source VARCHAR(64) NOT NULL, missed BIGINT NOT NULL, changes BIGINT NOT NULL, \
             INDEX io_changes_line (line, id), \
             INDEX io_changes_time (time_unix_ns)) ENGINE=InnoDB CHARACTER SET utf8mb4",
            "CREATE TABLE IF NOT EXISTS meta (name VARCHAR(64) PRIMARY KEY, value VARCHAR(190) NOT NULL) \
             ENGINE=InnoDB CHARACTER SET utf8mb4",
        ]
    }

    /// The server tells a size that does not fall when rows are removed, so rows are counted: [`ROW_BYTES`] each.
    fn used_bytes(&mut self) -> Result<u64> {
        let sql = "SELECT (SELECT COALESCE(MAX(id) - MIN(id) + 1, 0) FROM events) \
                   + (SELECT COALESCE(MAX(id) - MIN(id) + 1, 0) FROM io_changes)";
        let rows = self.select(sql, &[])?;
        let count = rows.first().and_then(|row| row.first()?.int()).unwrap_or(0);
        Ok(count.unsigned_abs().saturating_mul(ROW_BYTES))
    }

    fn give_back(&mut self) -> Result<()> {
        Ok(())
    }

    fn transaction(&mut self, work: &mut dyn FnMut(&mut dyn Sql) -> Result<()>) -> Result<()> {
        transaction(self, "START TRANSACTION", work)
    }
}

fn params(values: &[Value]) -> Params {
    if values.is_empty() {
        return Params::Empty;
    }
    let value = |value: &Value| match value {
        Value::Null => mysql::Value::NULL,
        Value::Int(number) => mysql::Value::Int(*number),
        Value::Text(text) => mysql::Value::Bytes(text.clone().into_bytes()),
    };
    Params::Positional(values.iter().map(value).collect())
}

fn value_of(value: mysql::Value) -> Value {
    match value {
        mysql::Value::NULL => Value::Null,
        mysql::Value::Int(number) => Value::Int(number),
        mysql::Value::UInt(number) => number.into(),
        mysql::Value::Bytes(bytes) => Value::Text(String::from_utf8_lossy(&bytes).into_owned()),
        other => Value::Text(other.as_sql(true)),
    }
}

fn failure(error: &mysql::Error) -> Failure {
    Failure::Other(error.to_string())
}

const PATIENCE: Duration = Duration::from_secs(10);
/// What a row takes with its indexes: an estimate, some two thirds of it text.
const ROW_BYTES: u64 = 1024;
