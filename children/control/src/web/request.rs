//! A request as everything behind the guard sees it: whole, bounded, decoded.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// One complete request.
#[derive(Clone, Debug)]
pub struct Request {
    /// What is wanted; HEAD is taken as GET, and the guard leaves the body of the answer away.
    pub method: Method,
    /// Path and query as they were sent.
    pub target: String,
    /// The path without the query, as it was sent.
    pub path: String,
    /// The parts of the path between slashes, decoded. `/a/b/` has three, the last one empty.
    pub segments: Vec<String>,
    /// What stands behind the question mark, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body; at most a mebibyte.
    pub body: Vec<u8>,
    /// Who sends it.
    pub peer: IpAddr,
    /// Whether it came over TLS.
    pub secure: bool,
    headers: Vec<(&'static str, String)>,
}

/// The methods that anything here answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Look.
    Get,
    /// Make or do.
    Post,
    /// Replace.
    Put,
    /// Change a part.
    Patch,
    /// Take away.
    Delete,
}

impl Method {
    /// By its word; `None` for one that nothing here answers.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "GET" | "HEAD" => Self::Get,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => return None,
        })
    }

    /// As it stands in a request.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it may change something.
    pub fn changes(self) -> bool {
        self != Self::Get
    }
}

impl Request {
    /// Takes the parts apart. Of the headers, those of [`HEADERS`] are kept.
    ///
    /// # Errors
    /// Something in it is not UTF-8 once it is decoded, or not a path.
    pub(crate) fn new<'a>(
        method: Method,
        target: &str,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        peer: IpAddr,
        secure: bool,
    ) -> Result<Self, Problem> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decoded = |text: &str| {
            let plain = percent_decode_str(text).decode_utf8().map_err(|_| Problem::bad("the path is not UTF-8"))?;
            if plain.contains('\0') {
                return Err(Problem::bad("the path has a zero byte in it"));
            }
            Ok(plain.into_owned())
        };
        let rest = path.strip_prefix('/').ok_or_else(|| Problem::bad("the path does not begin with a slash"))?;
        let segments = rest.split('/').map(decoded).collect::<Result<_, _>>()?;
        let query = pairs(query.as_bytes()).ok_or_else(|| Problem::bad("the query is not UTF-8"))?;
        let known = |name: &str| HEADERS.iter().find(|known| known.eq_ignore_ascii_case(name)).copied();
        let headers = headers.filter_map(|(name, value)| Some((known(name)?, value.to_owned()))).collect();
        let (target, path) = (target.to_owned(), path.to_owned());
        Ok(Self { method, target, path, segments, query, body: Vec::new(), peer, secure, headers })
    }

    /// The value of one of the [`HEADERS`]; the first if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a page sends it by itself, to show what is new: as said by its script, or because it is the begin of a stream.
    pub(crate) fn is_refresh(&self) -> bool {
        let is_stream = || self.header("accept") == Some("text/event-stream");
        !self.method.changes() && (self.header(REFRESH).is_some() || is_stream())
    }

    /// All values of one of the [`HEADERS`].
    pub(crate) fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A value of the query; the first if there are several.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What a form sent: names and values in order, UTF-8.
    ///
    /// # Errors
    /// The body is no form of this kind (415, 400).
    pub fn form(&self) -> Result<Vec<(String, String)>, Problem> {
        if !self.has_type("application/x-www-form-urlencoded") {
            return Err(Problem::new(415, "expected Content-Type: application/x-www-form-urlencoded"));
        }
        pairs(&self.body).ok_or_else(|| Problem::bad("the form is not UTF-8"))
    }

    /// Whether the body is of this media type (in lower case).
    pub fn has_type(&self, media_type: &str) -> bool {
        let given = self.header("content-type").unwrap_or_default();
        let (given, parameters) = given.split_once(';').unwrap_or((given, ""));
        let charset = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.trim().split_once('=')?;
            name.eq_ignore_ascii_case("charset").then(|| value.trim_matches('"').to_ascii_lowercase())
        });
        given.trim().eq_ignore_ascii_case(media_type) && charset.is_none_or(|charset| charset == "utf-8")
    }

    /// The value of a cookie. When there are several of one name, somebody planted one: then there is none.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let all = self.headers.iter().filter(|(known, _)| *known == "cookie").flat_map(|(_, value)| value.split(';'));
        let mut fitting = all.filter_map(|cookie| cookie.trim().split_once('=')).filter(|(key, _)| *key == name);
        fitting.next().filter(|_| fitting.next().is_none()).map(|(_, value)| value)
    }

    /// Whether a person looks at the answer.
    pub fn wants_html(&self) -> bool {
        self.header("accept").is_some_and(|accept| accept.contains("text/html"))
    }
}

/// `a=1&b=2`, decoded; `None` if that is not UTF-8.
fn pairs(text: &[u8]) -> Option<Vec<(String, String)>> {
    let plain = |part: &[u8]| {
        let blanks: Vec<u8> = part.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect();
        String::from_utf8(percent_encoding::percent_decode(&blanks).collect()).ok()
    };
    text.split(|&byte| byte == b'&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let mut halves = part.splitn(2, |&byte| byte == b'=');
            Some((plain(halves.next().unwrap_or_default())?, plain(halves.next().unwrap_or_default())?))
        })
        .collect()
}

/// The headers that anything here looks at; all others stay in the guard.
pub(crate) const HEADERS: [&str; 13] = [
    "accept",
    "authorization",
    "content-type",
    "cookie",
    "host",
    "if-match",
    "if-none-match",
    "last-event-id",
    "origin",
    "referer",
    "sec-fetch-site",
    "x-csrf-token",
    REFRESH,
];

/// Set by the script of a page that asks for itself again, and nobody has touched it since it did last.
const REFRESH: &str = "x-refresh";

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Result<Request, Problem> {
        let peer = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Request::new(Method::Get, target, headers.iter().copied(), peer, false)
    }

    #[test]
    fn paths_and_queries_are_decoded() {
        let got = request("/a/b%2Fc/%C3%A4/?x=1&y=a+b%2B&x=2&z", &[]).expect("good");
        assert_eq!(got.segments, ["a", "b/c", "ä", ""]);
        assert_eq!(
            (got.query("x"), got.query("y"), got.query("z"), got.query("w")),
            (Some("1"), Some("a b+"), Some(""), None)
        );
        for bad in ["", "a", "*", "/%ff", "/%00", "/?%ff", "/a?b=%c3"] {
            assert_eq!(request(bad, &[]).expect_err(bad).status, 400, "{bad}");
        }
        assert_eq!(request("/%zz%", &[]).expect("left as it is").segments, ["%zz%"]);
    }

    #[test]
    fn known_headers_are_kept_and_a_planted_cookie_is_none() {
        let got = request("/", &[("Cookie", "a=1; b=2;c"), ("X-Secret", "x"), ("ACCEPT", "text/html")]).expect("good");
        assert_eq!((got.cookie("a"), got.cookie("b"), got.cookie("c")), (Some("1"), Some("2"), None));
        assert!(got.wants_html() && got.header("x-secret").is_none());
        let got = request("/", &[("cookie", "a=1"), ("cookie", "b=2; a=3")]).expect("good");
        assert_eq!((got.cookie("a"), got.cookie("b")), (None, Some("2")));
    }

    #[test]
    fn media_types_are_compared_as_they_should() {
        let is_json =
            |value: &str| request("/", &[("content-type", value)]).expect("good").has_type("application/json");
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json; x=y",
        ] {
            assert!(is_json(good), "{good}");
        }
        for bad in
            ["", "text/plain", "application/jsonx", "application/json; charset=latin1", "application/problem+json"]
        {
            assert!(!is_json(bad), "{bad}");
        }
        let mut form = request("/", &[("content-type", "application/x-www-form-urlencoded")]).expect("good");
        form.body = b"a=%E2%82%AC&b=1+2&a=".to_vec();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(form.form().expect("good"), [pair("a", "€"), pair("b", "1 2"), pair("a", "")]);
        form.body = b"a=%ff".to_vec();
        assert_eq!(form.form().expect_err("not UTF-8").status, 400);
    }
}
