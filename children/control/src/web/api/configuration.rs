//! Configurations: read, check, save, history, and what becomes of a change.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::problem::{FieldError, Problem};
use super::super::request::Method::{Get, Post, Put};
use super::table::{Access, Call, Json, Table, Tagged};
use crate::service::configuration::{Change, Document, DocumentInfo, Pending, Save, Saved, Text, VersionInfo};
use crate::service::{Caller, Error};

/// Which documents there are.
#[derive(Serialize, JsonSchema)]
struct Documents {
    /// `multusd` (its path is `daemon/multusd`), each `children/NAME`, `config/INSTANCE` for every child instance, and
    /// `files/INSTANCE:PARAMETER` for every text file that a parameter names.
    documents: Vec<DocumentInfo>,
}

/// A text that may become a document.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Draft {
    /// TOML, or any text for `files/*`. Values that were hidden may stay hidden: they are kept.
    text: String,
}

/// What is wrong.
#[derive(Serialize, JsonSchema)]
struct Checked {
    /// Whether it could be saved.
    valid: bool,
    /// Everything that is wrong; some only deserve a look (`warning`).
    errors: Vec<FieldError>,
}

/// A change of single values; comments and layout stay.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Edit {
    /// One after the other.
    changes: Vec<EditChange>,
}

/// One value.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EditChange {
    /// The tables and the key, such as `["heartbeat", "deadline"]`.
    path: Vec<String>,
    /// The new value; `null`: back to its default.
    value: Option<serde_json::Value>,
}

/// A text.
#[derive(Serialize, JsonSchema)]
struct Edited {
    /// TOML, with the changes. Nothing is saved yet.
    text: String,
}

/// A new text.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SaveBody {
    /// TOML, or any text for `files/*`.
    text: String,
    /// The version it was made from (0: there was no file). May be left out when `If-Match` says it.
    version: Option<u64>,
    /// Why, for the history.
    #[serde(default)]
    comment: String,
}

/// An older version is to be the new one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollBack {
    /// The version to go back to.
    to: u64,
    /// The version there is now. May be left out when `If-Match` says it.
    version: Option<u64>,
}

/// The versions that are kept.
#[derive(Serialize, JsonSchema)]
struct History {
    /// Latest first.
    versions: Vec<VersionInfo>,
}

/// One version.
#[derive(Serialize, JsonSchema)]
struct Version {
    /// Which, who and when.
    info: VersionInfo,
    /// TOML, or any text for `files/*`; hidden values are `********`.
    text: String,
}

/// What became of saved changes.
#[derive(Serialize, JsonSchema)]
struct Changes {
    /// Those that wait, those that are being applied, and the last result for each document.
    changes: Vec<Pending>,
}

pub(crate) fn routes(table: &mut Table) {
    let (user, operator) = (Access::Level(Caller::USER), Access::Level(Caller::OPERATOR));
    table.add(Get, "/documents", "documents", "Which configurations there are", user, |call, (): ()| {
        Ok(Json(Documents { documents: call.web.service.documents(call.caller()?)? }))
    });
    table.add(Get, "/changes", "changes", "What became of saved changes", user, |call, (): ()| {
        Ok(Json(Changes { changes: call.web.service.pending(call.caller()?)? }))
    });
    let (one, base) = ("/documents/{kind}/{name}", Access::Level(Caller::USER));
    table.add(Get, one, "document", "A configuration with its version and schema", base, read);
    table.add(Put, one, "save-document", "Save a configuration; it is applied after a while", base, save);
    let path = "/documents/{kind}/{name}/validate";
    table.add(Post, path, "validate-document", "Everything that is wrong with a text; nothing is saved", base, check);
    let path = "/documents/{kind}/{name}/edit";
    table.add(Post, path, "edit-document", "The text with some values changed; nothing is saved", base, edited);
    let path = "/documents/{kind}/{name}/history";
    table.add(Get, path, "document-history", "The versions that are kept", base, versions);
    let path = "/documents/{kind}/{name}/history/{version}";
    table.add(Get, path, "document-version", "One version", base, one_version);
    let path = "/documents/{kind}/{name}/rollback";
    table.add(Post, path, "roll-back-document", "Save an older version once more", base, roll_back);
    let path = "/documents/{kind}/{name}/apply";
    table.add(Post, path, "apply-document", "Apply a change that waits at once", operator, apply);
    let path = "/documents/{kind}/{name}/revert";
    table.add(Post, path, "revert-document", "Take a change back", base, revert);
}

/// `daemon/multusd`, `children/NAME`, `config/INSTANCE` or `files/INSTANCE:PARAMETER`.
fn document(call: &Call<'_>) -> Result<Document, Problem> {
    let (kind, name) = (call.part(0), call.part(1));
    let unknown = || Error::NotFound(format!("there is no configuration {kind}/{name}"));
    let full = match kind {
        "daemon" if name == "multusd" => "multusd".to_owned(),
        "daemon" => return Err(unknown().into()),
        _ => format!("{kind}/{name}"),
    };
    Ok(full.parse().map_err(|_| unknown())?)
}

/// What a change was made from: said in the body, or by `If-Match` with the tag that came with the document.
fn expected(call: &Call<'_>, of_body: Option<u64>) -> Result<u64, Problem> {
    let tag = call.request.header("if-match").map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'));
    let of_header = match tag.map(str::parse::<u64>) {
        None => None,
        Some(Ok(version)) => Some(version),
        Some(Err(_)) => return Err(Problem::new(412, "If-Match: expected the ETag that came with the document")),
    };
    match (of_body, of_header) {
        (Some(body), Some(header)) if body != header => {
            Err(Error::field("version", "If-Match says another version").into())
        }
        (Some(version), _) | (None, Some(version)) => Ok(version),
        (None, None) => Err(Error::field("version", "missing: which version was this made from? (or If-Match)").into()),
    }
}

fn read(call: &Call<'_>, (): ()) -> Result<Tagged<Json<Text>>, Problem> {
    let text = call.web.service.document(call.caller()?, &document(call)?)?;
    let version = text.version;
    Ok(Tagged(Json(text), version))
}

fn save(call: &Call<'_>, Json(body): Json<SaveBody>) -> Result<Tagged<Json<Saved>>, Problem> {
    let save = Save { text: &body.text, expected_version: expected(call, body.version)?, comment: &body.comment };
    let saved = call.web.service.save(call.caller()?, &document(call)?, &save)?;
    let version = saved.version;
    Ok(Tagged(Json(saved), version))
}

fn check(call: &Call<'_>, Json(draft): Json<Draft>) -> Result<Json<Checked>, Problem> {
    let problems = call.web.service.validate(call.caller()?, &document(call)?, &draft.text)?;
    let valid = problems.iter().all(|problem| problem.warning);
    Ok(Json(Checked { valid, errors: problems.iter().map(FieldError::from).collect() }))
}

fn edited(call: &Call<'_>, Json(edit): Json<Edit>) -> Result<Json<Edited>, Problem> {
    let changes: Vec<Change> =
        edit.changes.into_iter().map(|EditChange { path, value }| Change { path, value }).collect();
    let text = call.web.service.edited(call.caller()?, &document(call)?, &changes)?;
    Ok(Json(Edited { text }))
}

fn versions(call: &Call<'_>, (): ()) -> Result<Json<History>, Problem> {
    Ok(Json(History { versions: call.web.service.history(call.caller()?, &document(call)?)? }))
}

fn one_version(call: &Call<'_>, (): ()) -> Result<Json<Version>, Problem> {
    let number = call.part(2);
    let unknown = || Error::NotFound(format!("there is no version {number:?}"));
    let number = number.parse().map_err(|_| unknown())?;
    let (info, text) = call.web.service.version(call.caller()?, &document(call)?, number)?;
    Ok(Json(Version { info, text }))
}

fn roll_back(call: &Call<'_>, Json(body): Json<RollBack>) -> Result<Tagged<Json<Saved>>, Problem> {
    let expected = expected(call, body.version)?;
    let saved = call.web.service.roll_back(call.caller()?, &document(call)?, body.to, expected)?;
    let version = saved.version;
    Ok(Tagged(Json(saved), version))
}

fn apply(call: &Call<'_>, (): ()) -> Result<Json<Pending>, Problem> {
    Ok(Json(call.web.service.apply_now(call.caller()?, &document(call)?)?))
}

fn revert(call: &Call<'_>, (): ()) -> Result<Json<Pending>, Problem> {
    Ok(Json(call.web.service.revert(call.caller()?, &document(call)?)?))
}
