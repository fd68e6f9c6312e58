//! Files that belong to the program: style sheets, scripts, pictures. They are in the program itself, so there is no path to
//! walk out of. The guard answers them without a worker.

use std::sync::LazyLock;

use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use super::problem::Problem;
use super::request::{Method, Request};
use super::response::Response;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../www/static");

/// The answer to `/static/...`; `None` for other paths.
pub(crate) fn answer(request: &Request) -> Result<Option<Response>, Problem> {
    let Some(path) = request.path.strip_prefix("/static/") else { return Ok(None) };
    if request.method != Method::Get {
        return Err(Problem::method("GET, HEAD"));
    }
    let file = FILES.get_file(path).ok_or_else(|| Problem::no_page(&request.path))?;
    let tag = format!("\"{}\"", version());
    let known = request.header("if-none-match").is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
    let mut response = Response::new(200, media_type(path), file.contents());
    if known {
        response = Response { status: 304, headers: Vec::new(), body: Vec::new(), stream: None };
    }
    // With its version in the query, the file of an address never changes.
    let is_named = request.query("v") == Some(version());
    let keep = if is_named { "public, max-age=31536000, immutable" } else { "no-cache" };
    Ok(Some(response.with("ETag", tag).with("Cache-Control", keep)))
}

/// Changes whenever one of the files does: pages ask for `/static/style.css?v=VERSION`.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = Sha256::new();
        let mut files = Vec::new();
        collect(&FILES, &mut files);
        for file in files {
            hash.update(file);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    });
    &VERSION
}

fn collect(dir: &'static Dir<'_>, files: &mut Vec<&'static [u8]>) {
    files.extend(dir.files().map(include_dir::File::contents));
    dir.dirs().for_each(|dir| collect(dir, files));
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}
