//! Reading, checking and saving documents.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use multus_contract::api::time::format_rfc3339;
use multus_contract::config::{self, ChildConfig, Diagnostic, Severity, find_program, replace_file};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use toml_edit::DocumentMut;

use super::super::faults::names_in;
use super::super::{Caller, Error, Problem, Result};
use super::history::{History, VersionInfo};
use super::program::{self, Draft, Stamp};
use super::schema::{self, Node};
use super::secrets::{flat, masked, restored};
use super::{Configuration, Document, DocumentInfo, MASK, Save, Saved, Text, own_schema};

/// One value of a document to be changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key with its tables, such as `["heartbeat", "deadline"]`.
    pub path: Vec<String>,
    /// The new value; `None` takes the key out, so that its default holds.
    pub value: Option<Value>,
}

/// What is wrong with files as they are.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<BTreeMap<Document, Found>>);

#[derive(Debug)]
struct Found {
    etag: String,
    /// Of the program that was asked.
    stamp: Option<Stamp>,
    at: Instant,
    problems: Vec<Problem>,
}

/// What is on the disk.
#[derive(Debug)]
pub(super) struct File {
    pub(super) text: Vec<u8>,
    /// When it was changed last; `None`: there is none.
    changed: Option<std::time::SystemTime>,
}

/// A file as it is.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) text: String,
    pub(super) exists: bool,
    pub(super) version: u64,
    pub(super) etag: String,
}

impl Configuration {
    pub(super) fn documents(&self) -> Result<Vec<DocumentInfo>> {
        let stems = |dir: &Path| -> Result<Vec<String>> {
            let names = names_in(dir)?.into_iter();
            let stems = names.filter_map(|name| Some(name.strip_suffix(".toml")?.to_owned()));
            Ok(stems.filter(|stem| config::name_fault(stem).is_none()).collect())
        };
        let mut all = vec![(Document::Daemon, None)];
        all.extend(
            stems(&self.dirs.children_dir())?.into_iter().map(|name| (Document::Child(name.clone()), Some(name))),
        );
        for child in config::load(&self.dirs.config).config.children {
            all.extend(child.instance_names().map(|name| (Document::Parameters(name), Some(child.name.clone()))));
        }
        for name in stems(&self.dirs.config.join("config"))? {
            let document = Document::Parameters(name);
            if !all.iter().any(|(known, _)| *known == document) {
                all.push((document, None));
            }
        }
        let mut texts = Vec::new();
        for (document, child) in &all {
            if let (Document::Parameters(instance), Some(child)) = (document, child) {
                texts.extend(self.text_files_of(instance).into_iter().map(|text| (text, Some(child.clone()))));
            }
        }
        all.append(&mut texts);
        all.sort();
        let exists = |document: &Document| match (document, document.path(&self.dirs)) {
            (Document::Text { instance, key }, _) => self.place(instance, key).is_ok_and(|place| place.path().exists()),
            (_, path) => path.is_some_and(|path| path.exists()),
        };
        Ok(all
            .into_iter()
            .map(|(document, child)| DocumentInfo { exists: exists(&document), document: document.to_string(), child })
            .collect())
    }

    pub(super) fn text(&self, caller: &Caller, document: &Document) -> Result<Text> {
        let schema = self.schema(document);
        let current = {
            let _files = self.files();
            self.current(document)?
        };
        if !current.exists && current.version == 0 && !self.may_exist(document) {
            return Err(Error::NotFound(format!("there is no document {document}")));
        }
        Ok(Text {
            document: document.to_string(),
            text: shown(document, &current.text, schema.as_deref(), caller),
            exists: current.exists,
            version: current.version,
            etag: current.etag,
            schema,
        })
    }

    pub(super) fn validate(
        &self,
        caller: &Caller,
        document: &Document,
        text: &str,
        patience: Duration,
    ) -> Result<Vec<Problem>> {
        let busy = || Error::Busy("another text is being checked; try again in a second".to_owned());
        let _pass = match caller.needs(Caller::ADMIN) {
            Ok(()) => None,
            Err(_) => Some(self.checks.enter(patience).ok_or_else(busy)?),
        };
        let schema = self.schema(document);
        let current = {
            let _files = self.files();
            self.current(document)?
        };
        match unmasked(document, text, &current.text, schema.as_deref(), caller) {
            Ok(text) => self.problems(document, &text),
            Err(problems) => Ok(problems),
        }
    }

    pub(super) fn findings(&self, document: &Document) -> Result<Vec<Problem>> {
        let current = {
            let _files = self.files();
            self.current(document)?
        };
        if !current.exists {
            return Ok(Vec::new());
        }
        let stamp = match document {
            Document::Parameters(instance) => self
                .child_of(instance)
                .as_ref()
                .and_then(program_of)
                .and_then(|(program, arguments)| Stamp::of(&program, &arguments)),
            _ => None,
        };
        let lock = || self.findings.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(document)
            && (&known.etag, &known.stamp) == (&current.etag, &stamp)
            && known.at.elapsed() < LOOK_AGAIN
        {
            return Ok(known.problems.clone());
        }
        let problems = self.problems(document, &current.text)?;
        let mut known = lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        let found = Found { etag: current.etag, stamp, at: Instant::now(), problems: problems.clone() };
        known.insert(document.clone(), found);
        Ok(problems)
    }

    pub(super) fn edited(&self, caller: &Caller, document: &Document, changes: &[Change]) -> Result<String> {
        if matches!(document, Document::Text { .. }) {
            return Err(Error::field("changes", format!("{document} is a text without parameters; send all of it")));
        }
        let text = self.text(caller, document)?.text;
        let mut edited: DocumentMut = text.parse().map_err(|error| {
            let problems = vec![of_syntax(&text, &error)];
            Error::Invalid { message: format!("{document} is no TOML; edit it as a text"), problems }
        })?;
        for change in changes {
            change_value(&mut edited, change)?;
        }
        Ok(edited.to_string())
    }

    pub(super) fn save(&self, caller: &Caller, document: &Document, save: &Save<'_>) -> Result<Saved> {
        if save.text.len() > LARGEST {
            return Err(Error::field("text", format!("at most {LARGEST} bytes")));
        }
        if save.comment.len() > LONGEST_COMMENT {
            return Err(Error::field("comment", format!("at most {LONGEST_COMMENT} bytes")));
        }
        let schema = self.schema(document);
        let unchanged = || {
            let current = self.current(document)?;
            match current.version == save.expected_version {
                true => Ok(current),
                false => Err(Error::Conflict { current: current.version }),
            }
        };
        let current = {
            let _files = self.files();
            unchanged()?
        };
        if !current.exists && !self.may_exist(document) {
            return Err(Error::NotFound(format!("no child belongs to {document}")));
        }
        let text = unmasked(document, save.text, &current.text, schema.as_deref(), caller).map_err(invalid)?;
        if text == current.text && current.exists {
            return Ok(Saved { version: current.version, etag: current.etag, problems: Vec::new(), pending: None });
        }
        let before = self.last_readable(document, &current.text)?;
        self.may_change(caller, document, &before, &text, schema.as_deref())?;
        let text = match schema.as_deref() {
            Some(schema) => super::version::raised(&before, text, schema),
            None => text,
        };
        let problems = self.problems(document, &text)?;
        if problems.iter().any(|problem| !problem.warning) {
            return Err(invalid(problems));
        }
        // A program may have looked at it for seconds; nobody else had to wait for that.
        let _files = self.files();
        unchanged()?;
        let saved = self.put(caller, document, &text, save.comment, schema.as_deref())?;
        log::info!("{document}: version {} by {}", saved.version, caller.name);
        let pending = self.settle(document, saved.version, &current);
        Ok(Saved { version: saved.version, etag: saved.etag, problems, pending: Some(pending) })
    }

    pub(super) fn history(&self, document: &Document) -> Result<Vec<VersionInfo>> {
        let _files = self.files();
        self.current(document)?;
        self.history_of(document).list()
    }

    pub(super) fn version(&self, caller: &Caller, document: &Document, version: u64) -> Result<(VersionInfo, String)> {
        let schema = self.schema(document);
        let history = self.history_of(document);
        let text = shown(document, &history.text(version)?, schema.as_deref(), caller);
        Ok((history.info(version)?, text))
    }

    pub(super) fn roll_back(&self, caller: &Caller, document: &Document, version: u64, expected: u64) -> Result<Saved> {
        let text = self.history_of(document).text(version)?;
        let comment = format!("as version {version}");
        self.save(caller, document, &Save { text: &text, expected_version: expected, comment: &comment })
    }

    /// Changes `instances` in the file of a child.
    pub(crate) fn set_instances(&self, caller: &Caller, child: &str, instances: u16) -> Result<()> {
        let document = Document::Child(super::super::faults::checked(child)?.to_owned());
        if document.path(&self.dirs).is_none_or(|path| !path.exists()) {
            return Err(super::super::status::no_child(child));
        }
        let version = self.text(&Caller::own(), &document)?.version;
        let change = Change { path: vec!["instances".into()], value: Some(instances.into()) };
        let text = self.edited(caller, &document, &[change])?;
        let comment = format!("instances = {instances}");
        self.save(caller, &document, &Save { text: &text, expected_version: version, comment: &comment })?;
        self.drop_pending(&document);
        Ok(())
    }

    // ---- the parts --------------------------------------------------------------------------------------------------

    /// The file, and its version: one that was changed by hand becomes a new one. Call with the files locked.
    pub(super) fn current(&self, document: &Document) -> Result<Current> {
        let File { text, changed } = self.read_file(document)?;
        let exists = changed.is_some();
        let text = String::from_utf8(text)
            .map_err(|_| Error::Internal(format!("the file of {document} is not UTF-8 text; mend it by hand")))?;
        let etag = etag_of(&text);
        let history = self.history_of(document);
        let latest = history.latest()?;
        let version = match latest {
            Some(latest) if latest.etag == etag && latest.exists == exists => latest.version,
            None if !exists => 0,
            latest => {
                let time = changed.unwrap_or_else(std::time::SystemTime::now);
                let comment = if latest.is_some() { "changed by hand" } else { "found" };
                let info = VersionInfo {
                    time: rfc3339(time),
                    comment: comment.to_owned(),
                    etag: etag.clone(),
                    exists,
                    ..VersionInfo::default()
                };
                match history.add(&text, info) {
                    Ok(info) => info.version,
                    Err(error) => {
                        // It can still be looked at; a save will say the same.
                        log::warn!("{document}: the history cannot be written: {error}");
                        latest.map_or(1, |latest| latest.version + 1)
                    }
                }
            }
        };
        Ok(Current { text, exists, version, etag })
    }

    /// The file of a document; an empty text if there is none.
    pub(super) fn read_file(&self, document: &Document) -> Result<File> {
        let none = File { text: Vec::new(), changed: None };
        let path = match (document, document.path(&self.dirs)) {
            (_, Some(path)) => path,
            (Document::Text { instance, key }, None) => {
                let found = self.place(instance, key)?.read()?;
                return Ok(found.map_or(none, |found| File { text: found.text, changed: Some(found.changed) }));
            }
            (_, None) => return Ok(none),
        };
        match fs::metadata(&path) {
            Ok(data) if !data.is_file() => Err(Error::Internal(format!("{}: no regular file", path.display()))),
            Ok(data) if data.len() > LARGEST as u64 => {
                Err(Error::Internal(format!("{}: larger than {LARGEST} bytes", path.display())))
            }
            Ok(data) => {
                let text = fs::read(&path).map_err(|error| Error::io(&path, &error))?;
                Ok(File { text, changed: Some(data.modified().unwrap_or_else(|_| std::time::SystemTime::now())) })
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(none),
            Err(error) => Err(Error::io(&path, &error)),
        }
    }

    /// Writes a text as a new version. Call with the files locked, after [`Configuration::current`].
    pub(super) fn put(
        &self,
        caller: &Caller,
        document: &Document,
        text: &str,
        comment: &str,
        schema: Option<&Value>,
    ) -> Result<VersionInfo> {
        let history = self.history_of(document);
        let info = VersionInfo {
            who: caller.name.clone(),
            time: rfc3339(std::time::SystemTime::now()),
            comment: comment.to_owned(),
            etag: etag_of(text),
            exists: true,
            ..VersionInfo::default()
        };
        // The history first: if the disk is full, the file is not touched at all.
        let info = history.add(text, info)?;
        if let Err(error) = self.write_file(document, text, schema) {
            history.forget(info.version);
            return Err(error);
        }
        Ok(info)
    }

    fn write_file(&self, document: &Document, text: &str, schema: Option<&Value>) -> Result<()> {
        if let Document::Text { instance, key } = document {
            return self.place(instance, key)?.replace(text);
        }
        let path = document.path(&self.dirs).unwrap_or_default();
        let parent = path.parent().unwrap_or(&self.dirs.config);
        fs::create_dir_all(parent).map_err(|error| Error::io(parent, &error))?;
        // A child may run as any user, and must be able to read its parameters.
        let secret = schema.is_some_and(Node::hides_something);
        let mode = if secret { 0o640 } else { 0o644 };
        replace_file(&path, text, mode).map_err(|error| Error::Internal(error.to_string()))
    }

    pub(super) fn history_of(&self, document: &Document) -> History {
        let all = self.dirs.state.join("config-history");
        let Document::Text { instance, key } = document else { return History::at(all.join(document.to_string())) };
        // Of this file, not of another that the parameter named once, and that may have been a stricter one's.
        let place = self.place(instance, key).map(|place| etag_of(&place.path().to_string_lossy()));
        History::at(
            all.join(format!("{document}@{}", place.map_or_else(|_| "nowhere".into(), |tag| tag[..16].to_owned()))),
        )
    }

    /// The text itself if it is TOML; else the latest version that is. Whoever mends a broken file changes what differs from
    /// that, not every parameter in it.
    fn last_readable(&self, document: &Document, text: &str) -> Result<String> {
        let is_toml = |text: &str| text.parse::<DocumentMut>().is_ok();
        if matches!(document, Document::Text { .. }) || is_toml(text) {
            return Ok(text.to_owned());
        }
        let history = self.history_of(document);
        let texts = history.list()?.into_iter().filter_map(|info| history.text(info.version).ok());
        Ok(texts.into_iter().find(|text| is_toml(text)).unwrap_or_else(|| text.to_owned()))
    }

    /// # Errors
    /// [`Error::Forbidden`] naming the parameters that this caller may not change.
    pub(super) fn may_change(
        &self,
        caller: &Caller,
        document: &Document,
        old: &str,
        new: &str,
        schema: Option<&Value>,
    ) -> Result<()> {
        if matches!(document, Document::Text { .. }) {
            let level = schema.map_or(Caller::ROOT, |schema| Node::root(Some(schema)).edit_level());
            return if old == new { Ok(()) } else { caller.needs(level) };
        }
        let parse = |text: &str| text.parse::<DocumentMut>().unwrap_or_default();
        let (old, new) = (flat(&parse(old), schema), flat(&parse(new), schema));
        let mut refused = Vec::new();
        let mut changed = false;
        for (key, (value, level)) in &new {
            if old.get(key).is_none_or(|(before, _)| before != value) {
                changed = true;
                refused.extend((caller.level > *level).then_some((key, *level)));
            }
        }
        for (key, (_, level)) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            changed = true;
            refused.extend((caller.level > *level).then_some((key, *level)));
        }
        if !changed {
            // Comments and layout.
            return caller.needs(Caller::ADMIN);
        }
        let Some((_, level)) = refused.iter().min_by_key(|(_, level)| *level) else { return Ok(()) };
        let keys: Vec<&str> = refused.iter().map(|(key, _)| key.as_str()).collect();
        let (keys, Caller { name, level: own }) = (keys.join(", "), caller);
        Err(Error::Forbidden(format!(
            "{document}: {name} has right level {own}; to change {keys} needs level {level} or a lower number"
        )))
    }

    /// Whether a file of this name would mean something.
    fn may_exist(&self, document: &Document) -> bool {
        match document {
            Document::Daemon | Document::Child(_) => true,
            Document::Parameters(instance) => self.child_of(instance).is_some(),
            Document::Text { instance, key } => self.place(instance, key).is_ok(),
        }
    }

    /// The child that an instance belongs to.
    pub(super) fn child_of(&self, instance: &str) -> Option<ChildConfig> {
        let children = config::load(&self.dirs.config).config.children;
        children.into_iter().find(|child| child.instance_names().any(|name| name == instance))
    }

    /// The schema of a document; `None` if its program has none. When nobody can tell whether there is one (the child is not in
    /// the configuration, or its program is not there), everything counts as secret.
    pub(super) fn schema(&self, document: &Document) -> Option<Arc<Value>> {
        match document {
            Document::Daemon => Some(own_schema::daemon()),
            Document::Child(_) => Some(own_schema::child()),
            Document::Parameters(instance) => match self.child_of(instance).as_ref().and_then(program_of) {
                Some((program, arguments)) => self.schemas.of(&program, &arguments),
                None => Some(schema::not_known()),
            },
            Document::Text { instance, key } => Some(Arc::new(self.place(instance, key).ok()?.schema())),
        }
    }

    /// All that is wrong with a text, masks put back already.
    fn problems(&self, document: &Document, text: &str) -> Result<Vec<Problem>> {
        if matches!(document, Document::Text { .. }) {
            return Ok(problems_of_text(text));
        }
        if let Err(error) = text.parse::<DocumentMut>() {
            return Ok(vec![of_syntax(text, &error)]);
        }
        match document {
            Document::Text { .. } => Ok(Vec::new()),
            Document::Daemon => self.daemon_problems(text, None),
            Document::Child(name) => self.daemon_problems(text, Some(name)),
            Document::Parameters(instance) => {
                let Some((program, arguments)) = self.child_of(instance).as_ref().and_then(program_of) else {
                    return Ok(Vec::new());
                };
                let dir = self.dirs.state.join("config-history");
                let draft = Draft::new(&dir, text).map_err(|error| Error::io(&dir, &error))?;
                match program::check_config(&program, &arguments, draft.path()) {
                    Ok(None) => Ok(Vec::new()),
                    Ok(Some(said)) => Ok(of_program(&said, draft.path(), text)),
                    Err(why) => Err(Error::Unavailable(format!("{}: {why}", program.display()))),
                }
            }
        }
    }

    /// What multusd itself would say, in a directory that differs from the real one in this document only.
    fn daemon_problems(&self, text: &str, child: Option<&str>) -> Result<Vec<Problem>> {
        let temp = Replica::new(&self.dirs.state.join("config-history"), &self.dirs.config, child, text)
            .map_err(|error| Error::Internal(format!("the text cannot be checked: {error}")))?;
        let before = config::load(&self.dirs.config).diagnostics;
        let concerns = |finding: &&Diagnostic| match child {
            Some(child) => finding.child.as_deref() == Some(child),
            None => finding.child.is_none(),
        };
        // Also what breaks elsewhere because of this one.
        let is_new = |finding: &&Diagnostic| {
            finding.severity == Severity::Error
                && !before.iter().any(|old| old.child == finding.child && old.message == finding.message)
        };
        let found = config::load(temp.path()).diagnostics;
        Ok(found
            .iter()
            .filter(|finding| concerns(finding) || is_new(finding))
            .map(|finding| {
                let elsewhere = !concerns(&finding);
                let prefix = if elsewhere { format!("{}: ", finding.file.display()) } else { String::new() };
                Problem {
                    line: if elsewhere { 0 } else { finding.line },
                    column: if elsewhere { 0 } else { finding.column },
                    key: finding.key.clone(),
                    message: format!("{prefix}{}", finding.message),
                    nearest: finding.nearest.clone().unwrap_or_default(),
                    // A missing program may come later; the daemon keeps such a child.
                    warning: finding.severity != Severity::Error,
                }
            })
            .collect())
    }
}

/// A copy of the configuration directory, by links, with one text of its own; gone when dropped.
#[derive(Debug)]
struct Replica {
    dir: PathBuf,
}

impl Replica {
    fn new(parent: &Path, config: &Path, child: Option<&str>, text: &str) -> std::io::Result<Self> {
        use std::os::unix::fs::{DirBuilderExt as _, symlink};
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);

        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let replica = Self { dir: parent.join(format!(".check-{}-{number}", std::process::id())) };
        fs::create_dir_all(replica.dir.join("children"))?;
        let own = match child {
            Some(child) => replica.dir.join("children").join(format!("{child}.toml")),
            None => replica.dir.join("multusd.toml"),
        };
        fs::write(own, text)?;
        if child.is_some() && config.join("multusd.toml").exists() {
            symlink(config.join("multusd.toml"), replica.dir.join("multusd.toml"))?;
        }
        for entry in fs::read_dir(config.join("children")).into_iter().flatten().flatten() {
            let link = replica.dir.join("children").join(entry.file_name());
            if !link.exists() {
                symlink(entry.path(), link)?;
            }
        }
        Ok(replica)
    }

    fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn program_of(child: &ChildConfig) -> Option<(PathBuf, Vec<String>)> {
    let (program, arguments) = child.command.split_first()?;
    Some((find_program(program).ok()?, arguments.to_vec()))
}

/// `text` as `caller` may see it.
fn shown(document: &Document, text: &str, schema: Option<&Value>, caller: &Caller) -> String {
    match document {
        Document::Text { .. } if text.is_empty() => String::new(),
        Document::Text { .. } if is_hidden_text(schema, caller) => MASK.to_owned(),
        Document::Text { .. } => text.to_owned(),
        _ => masked(text, schema, caller),
    }
}

/// A text of which nothing is known at the moment is hidden.
fn is_hidden_text(schema: Option<&Value>, caller: &Caller) -> bool {
    schema.is_none_or(|schema| Node::root(Some(schema)).is_hidden_from(caller))
}

/// What no program takes for a text.
fn problems_of_text(text: &str) -> Vec<Problem> {
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}' | '\u{1b}');
    let Some(at) = text.find(strange) else { return Vec::new() };
    let (line, column) = place(text, at);
    let message = "a control character, which stands in no text".to_owned();
    vec![Problem { line, column, message, ..Problem::default() }]
}

/// `text` with hidden values in place of their masks.
fn unmasked(
    document: &Document,
    text: &str,
    old: &str,
    schema: Option<&Value>,
    caller: &Caller,
) -> std::result::Result<String, Vec<Problem>> {
    if matches!(document, Document::Text { .. }) {
        let hidden = is_hidden_text(schema, caller);
        return Ok(if hidden && text.trim_end() == MASK { old } else { text }.to_owned());
    }
    if let Err(error) = text.parse::<DocumentMut>() {
        return Err(vec![of_syntax(text, &error)]);
    }
    restored(text, old, schema, caller)
}

fn change_value(document: &mut DocumentMut, change: &Change) -> Result<()> {
    let key = change.path.join(".");
    let bad = |what: &str| Error::field(&key, what);
    let (last, tables) = change.path.split_last().ok_or_else(|| bad("an empty path"))?;
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for name in tables {
        if table.get(name).is_none() {
            if change.value.is_none() {
                return Ok(());
            }
            let mut new = toml_edit::Table::new();
            new.set_implicit(true);
            table.insert(name, toml_edit::Item::Table(new));
        }
        let item = table.get_mut(name).ok_or_else(|| bad("no table"))?;
        table = item.as_table_like_mut().ok_or_else(|| bad("stands where a value is, no table"))?;
    }
    let Some(value) = &change.value else {
        table.remove(last);
        return Ok(());
    };
    let mut new = to_toml(value).ok_or_else(|| bad("TOML has no such value"))?;
    match table.get_mut(last) {
        Some(toml_edit::Item::Value(old)) => {
            // The comment at the end of the line stays.
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        _ => {
            table.insert(last, toml_edit::Item::Value(new));
        }
    }
    Ok(())
}

fn to_toml(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => {
            toml_edit::Value::Array(items.iter().map(to_toml).collect::<Option<toml_edit::Array>>()?)
        }
        Value::Object(map) => {
            let mut table = toml_edit::InlineTable::new();
            for (key, value) in map {
                table.insert(key, to_toml(value)?);
            }
            toml_edit::Value::InlineTable(table)
        }
    })
}

fn of_syntax(text: &str, error: &toml_edit::TomlError) -> Problem {
    let (line, column) = error.span().map_or((0, 0), |span| place(text, span.start));
    Problem { line, column, message: error.message().replace('\n', " "), ..Problem::default() }
}

/// Line and column, both from 1, of a byte.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// What a program said of a file, taken apart: `FILE:LINE: KEY: MESSAGE; did you mean "NEAREST"?`, one a line.
fn of_program(said: &str, file: &Path, text: &str) -> Vec<Problem> {
    let file = file.display().to_string();
    let mut problems: Vec<Problem> = said.lines().filter_map(|line| of_program_line(line, &file, text)).collect();
    problems.truncate(100);
    if problems.is_empty() {
        let message = "the program refuses it, but does not say why".to_owned();
        problems.push(Problem { message, ..Problem::default() });
    }
    problems
}

fn of_program_line(said: &str, file: &str, text: &str) -> Option<Problem> {
    let said = said.trim_end();
    if said.is_empty() {
        return None;
    }
    let Some(rest) = said.strip_prefix(file) else {
        return Some(Problem { message: said.to_owned(), ..Problem::default() });
    };
    let (line, rest): (usize, &str) = match rest.strip_prefix(':').and_then(|rest| rest.split_once(": ")) {
        Some((line, rest)) if line.parse::<usize>().is_ok() => (line.parse().unwrap_or_default(), rest),
        _ => (0, rest.trim_start_matches([':', ' '])),
    };
    let is_key = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '[' | ']'))
    };
    let (key, message) = match rest.split_once(": ") {
        Some((key, message)) if is_key(key) => (key, message),
        _ => ("", rest),
    };
    let (message, nearest) = match message.rsplit_once("; did you mean \"") {
        Some((message, nearest)) => (message, nearest.trim_end_matches("\"?")),
        None => (message, ""),
    };
    let last = key.rsplit('.').next().unwrap_or_default();
    let last = last.split('[').next().unwrap_or_default();
    let column = text.lines().nth(line.saturating_sub(1)).filter(|_| line > 0 && !last.is_empty());
    let column = column.and_then(|text| text.find(last).map(|at| text[..at].chars().count() + 1)).unwrap_or(0);
    Some(Problem {
        line,
        column,
        key: key.to_owned(),
        message: message.to_owned(),
        nearest: nearest.to_owned(),
        warning: false,
    })
}

fn invalid(problems: Vec<Problem>) -> Error {
    let errors = problems.iter().filter(|problem| !problem.warning).count();
    let message = match problems.iter().find(|problem| !problem.warning) {
        Some(Problem { line: 0, message, .. }) => message.clone(),
        Some(Problem { line, key, message, .. }) if key.is_empty() => format!("line {line}: {message}"),
        Some(Problem { line, key, message, .. }) => format!("line {line}: {key}: {message}"),
        None => "it cannot be used".to_owned(),
    };
    let more = if errors > 1 { format!(" (and {} more)", errors - 1) } else { String::new() };
    Error::Invalid { message: format!("{message}{more}"), problems }
}

pub(super) fn etag_of(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rfc3339(time: std::time::SystemTime) -> String {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format_rfc3339(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// A message of the network interface holds a mebibyte; a configuration is a page or two.
pub(super) const LARGEST: usize = 512 * 1024;
const LONGEST_COMMENT: usize = 500;
/// What is wrong may also depend on other files, which are not looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const MOST_KNOWN: usize = 1000;
